// SPDX-License-Identifier: Apache-2.0
//! Panics in each request, two functions deep, for a test of what the log says then. No SDK: the ABI's few exports.

#[no_mangle]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[no_mangle]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::leak(vec![0u8; size].into_boxed_slice()).as_mut_ptr()
}

#[no_mangle]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

struct Quota {
    left: Vec<u32>,
}

impl Quota {
    #[inline(never)]
    fn take_one(&mut self, from: usize) -> u32 {
        self.left[from] // out of bounds
    }
}

#[inline(never)]
fn charge_the_client(context: u32) -> u32 {
    let mut quota = Quota { left: vec![1] };
    quota.take_one(context as usize + 1)
}

#[no_mangle]
pub extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, _end: u32) -> u32 {
    charge_the_client(context) & 0
}
