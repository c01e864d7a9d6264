//! Integration tests: the real binary, real libraries, a real MongoDB.

mod broken_libraries;
