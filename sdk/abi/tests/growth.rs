//! A struct of an older or a newer peer is read as far as both know it.

use std::mem::offset_of;

use tailwater_abi::{TW_BATCH_SIZE_MIN, tw_batch, tw_copy, tw_has};

/// `tw_batch` as a later minor might have it.
#[repr(C)]
struct Later {
    struct_size: u32,
    event_stride: u32,
    len: u32,
    reserved0: u32,
    bytes: u64,
    events: *const u8,
    timeout_ms: u64,
    appended: u64,
}

fn batch() -> tw_batch {
    let struct_size = size_of::<tw_batch>() as u32;
    tw_batch { struct_size, event_stride: 1, len: 2, reserved0: 0, bytes: 3, events: std::ptr::null(), timeout_ms: 4 }
}

#[test]
fn what_an_older_peer_does_not_know_is_zero_and_not_read() {
    assert_eq!(offset_of!(Later, appended), TW_BATCH_SIZE_MIN as usize);
    // Of exactly its size: one byte more would be behind the allocation.
    let older = [batch()];
    let older = older.as_ptr().cast::<Later>();
    // SAFETY: `struct_size` bytes are there.
    let (copy, has) = unsafe { (tw_copy(older, TW_BATCH_SIZE_MIN), tw_has!(older, Later, appended)) };
    assert_eq!((copy.len, copy.bytes, copy.timeout_ms, copy.appended, has), (2, 3, 4, 0, false));
}

#[test]
fn what_a_newer_peer_appended_is_left_out() {
    let batch = batch();
    let newer = Later {
        struct_size: size_of::<Later>() as u32,
        event_stride: 1,
        len: 2,
        reserved0: 0,
        bytes: 3,
        events: batch.events,
        timeout_ms: 4,
        appended: 5,
    };
    // SAFETY: longer than what is copied.
    let copy = unsafe { tw_copy((&raw const newer).cast::<tw_batch>(), newer.struct_size) };
    assert_eq!((copy.struct_size, copy.timeout_ms), (48, 4));
    // SAFETY: a live value.
    assert!(unsafe { tw_has!(&raw const newer, Later, appended) });
    assert_eq!(newer.appended, 5);
}
