//! Making one tree like another that it has most in common with.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use gantry_sys::copy::{self, Copier};
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use crate::diff::is_directory;
use crate::extract::tree::remove;

/// Makes the tree `to` like `from`. What is alike already, contents included, is left alone.
///
/// # Errors
/// Of any read or write, with the place; `to` is then something in between.
pub(crate) fn mirror(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Mirror {
        copier: Copier::new(to),
    }
    .directory(from, to, b"")
}

struct Mirror<'a> {
    copier: Copier<'a>,
}

impl Mirror<'_> {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        place: &[u8],
    ) -> io::Result<()> {
        let stat = fs::fstat(from)?;
        let wanted = copy::names(from)?;
        for gone in copy::names(to)? {
            if wanted.binary_search(&gone).is_err() {
                remove(to, gone.to_bytes())?;
            }
        }
        for name in wanted {
            let place = copy::join(place, name.to_bytes());
            self.entry(from, to, &name, &place)?;
        }
        let now = fs::fstat(to)?;
        if !copy::same_attributes(&stat, &now) || copy::extended(from)? != copy::extended(to)? {
            copy::attributes(from, to, &stat)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        place: &[u8],
    ) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let there = match fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return self.copier.entry(from, to, name, place),
            Err(error) => return Err(error.into()),
        };
        if is_directory(&stat) && is_directory(&there) {
            let (from, to) = (
                copy::open_directory(from, name)?,
                copy::open_directory(to, name)?,
            );
            return self.directory(from.as_fd(), to.as_fd(), place);
        }
        // The names of one file are copied together, or not at all.
        if stat.st_nlink < 2
            && there.st_nlink < 2
            && copy::same_file((from, &stat), (to, &there), name)?
        {
            return Ok(());
        }
        remove(to, name.to_bytes())?;
        self.copier.entry(from, to, name, place)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn shell(dir: &Path, script: &str) -> String {
        let out = Command::new("sh")
            .args(["-ec", script])
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Everything that `find` tells of a tree, and the contents.
    fn portrait(dir: &Path) -> String {
        let told = "%P %y %m %U %G %s %T@ %n %l\\n";
        let find =
            format!("find . -type d -printf '%P %m %U %G %T@\\n' -o -printf '{told}' | sort");
        let contents = "find . -type f | sort | xargs sha256sum";
        shell(dir, &find) + &shell(dir, contents)
    }

    #[test]
    fn a_mirror_is_like_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let image =
            "mkdir -p a/b etc; echo one >a/file; ln a/file a/b/same; echo x >etc/x; ln -s y link;
            mkdir turns; touch turns/f; touch file; chown 7:8 etc/x";
        let changes = "rm -r turns; touch turns; rm file; mkdir file; touch file/g; printf two >a/b/own;
            ln a/b/own a/own; chmod 4755 etc/x; rm link; mkfifo link; touch -d @5 a; echo two >>a/file; rmdir etc/none || true;
            dd if=/dev/zero of=a/holes bs=1 count=1 seek=10M status=none";
        for name in ["from", "to"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            shell(&dir.path().join(name), image);
        }
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        shell(&from, changes);
        // The same length and times, but another content.
        shell(&from, "printf new >same; touch -d @9 same");
        shell(
            &to,
            "printf old >same; touch -d @9 same; mkdir -p gone/deep",
        );
        let open = |path: &Path| std::fs::File::open(path).unwrap();
        mirror(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert_eq!(portrait(&from), portrait(&to));
    }
}
