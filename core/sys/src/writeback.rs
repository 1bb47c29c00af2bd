//! Getting written data on its way to the disk before it has to be there.

use std::os::fd::{AsFd, AsRawFd};

/// Starts to write out what is dirty of `length` bytes from `offset` on (0: all that follows), and waits for nothing but
/// a full queue of the device. What is on its way need not be waited for by the sync that makes it durable; this makes
/// nothing durable. Failures show in that sync. Source: sync_file_range(2).
pub fn begin(file: impl AsFd, offset: u64, length: u64) {
    let file = file.as_fd();
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
        return;
    };
    // SAFETY: a system call on a descriptor that is borrowed for its time; it takes no pointers.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_descriptor_and_any_range() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        for (offset, length) in [
            (0, 0),
            (0, 4096),
            (8192, 1 << 40),
            (u64::MAX, 1),
            (1, u64::MAX),
        ] {
            begin(&file, offset, length);
        }
        begin(std::io::stdin(), 0, 0);
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    }
}
