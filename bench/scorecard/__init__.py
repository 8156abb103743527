# SPDX-License-Identifier: Apache-2.0
"""The bench: every proxy in turn under one load, and how soon an edit of a file acts."""
