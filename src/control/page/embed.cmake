# SPDX-License-Identifier: Apache-2.0
# cmake -DOUT=page.c -P embed.cmake: the files of the page as one C file, so that the program needs nothing beside itself.
set(text "/* Made by embed.cmake from src/control/page. */\n#include \"control/page.h\"\n\n")
set(table "")
foreach(name page.html page.css page.js icon.svg)
  file(READ ${CMAKE_CURRENT_LIST_DIR}/${name} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "[.]" "_" id ${name})
  string(APPEND text "static const unsigned char ${id}[] = {${bytes}};\n")
  string(APPEND table "    {\"${name}\", ${id}, sizeof ${id}},\n")
endforeach()
string(APPEND text "\nconst struct page_file page_files[PAGE_FILES] = {\n${table}};\n")
file(WRITE ${OUT} "${text}")
