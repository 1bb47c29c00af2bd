use std::fs as std_fs;
use std::path::Path;
use std::process::Command;

use super::*;

fn shell(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .arg("-ec")
        .arg(script)
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
}

fn root(path: &Path) -> OwnedFd {
    std_fs::File::open(path).unwrap().into()
}

const GENERATED: [&str; 5] = ["/dev", "/proc", "/etc/hosts", "/etc/hostname", "/x/y/made"];

/// The changes that a script makes in an overlay on what another has made, which are those that it makes in a copy; both
/// run in the tree's root.
fn after(before: &str, script: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    shell(dir.path(), "mkdir lower upper work merged");
    shell(&dir.path().join("lower"), before);
    let told = over(dir.path(), script);
    for known in [true, false] {
        assert_eq!(copied(dir.path(), script, known), told, "in a copy");
    }
    told
}

fn over(dir: &Path, script: &str) -> Vec<String> {
    let mounted = format!(
        "mount -t overlay x -o index=off,metacopy=off,redirect_dir=off,lowerdir=lower,upperdir=upper,workdir=work merged
        (cd merged; {script})"
    );
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", &mounted])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
    let (upper, lower) = (root(&dir.join("upper")), root(&dir.join("lower")));
    told(compare(upper, lower, None, &GENERATED).unwrap())
}

/// With and without knowing when the copy was made.
fn copied(dir: &Path, script: &str, known: bool) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;

    let copy = dir.join("copy");
    std_fs::create_dir(&copy).unwrap();
    copy::tree(root(&dir.join("lower")).as_fd(), root(&copy).as_fd()).unwrap();
    std_fs::write(dir.join("meta"), "").unwrap();
    let made = std_fs::metadata(dir.join("meta")).unwrap();
    let made = known.then_some((made.ctime(), made.ctime_nsec()));
    shell(&copy, script);
    let whole = Some(Whole { made });
    let found = compare(root(&copy), root(&dir.join("lower")), whole, &GENERATED).unwrap();
    std_fs::remove_dir_all(&copy).unwrap();
    told(found)
}

fn told(found: Found) -> Vec<String> {
    let mut told: Vec<String> = found
        .changes
        .into_iter()
        .map(|change| {
            let letter = match change.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{letter} {}", String::from_utf8(change.path).unwrap())
        })
        .collect();
    told.sort();
    told
}

#[test]
fn added_modified_and_deleted() {
    let before = "mkdir -p a/b/c etc; touch a/b/file a/b/c/deep a/gone etc/passwd; ln -s a link";
    let script = "echo x >>a/b/c/deep; rm a/gone; mkdir -p new/sub; touch new/sub/f; chmod 700 etc; ln -sfn b link";
    assert_eq!(
        after(before, script),
        [
            "A /new",
            "A /new/sub",
            "A /new/sub/f",
            "C /a",
            "C /a/b/c/deep",
            "C /etc",
            "C /link",
            "D /a/gone",
        ]
    );
}

#[test]
fn a_directory_made_anew_has_lost_what_was_in_it() {
    let before = "mkdir -p d/sub; touch d/one d/two";
    let script = "rm -r d; mkdir d; touch d/two d/three";
    assert_eq!(
        after(before, script),
        ["A /d/three", "C /d", "C /d/two", "D /d/one", "D /d/sub"]
    );
}

#[test]
fn what_the_engine_makes_does_not_count() {
    let made = "mkdir dev proc; mkdir -p x/y; touch x/y/made etc/hosts etc/hostname";
    assert!(after("mkdir etc", made).is_empty());
    let and_more = format!("{made}; touch etc/motd; touch -d @5 x");
    assert_eq!(after("mkdir etc", &and_more), ["A /etc/motd", "C /etc"]);
    // With content they are the user's, and the image's own count when they are changed.
    assert_eq!(
        after("mkdir etc", "echo x >etc/hosts"),
        ["A /etc/hosts", "C /etc"]
    );
    assert_eq!(
        after("mkdir etc; echo x >etc/hosts", ": >etc/hosts"),
        ["C /etc/hosts"]
    );
}

#[test]
fn a_change_that_hides_its_traces_is_found_in_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        "mkdir lower; touch -d @1 lower/f lower/g; printf one >lower/h; touch -d @1 lower/h",
    );
    let script = "printf two >h; touch -d @1 h; setfattr -n user.k -v 1 g 2>/dev/null || touch g";
    for known in [true, false] {
        assert_eq!(copied(dir.path(), script, known), ["C /g", "C /h"]);
    }
}

#[test]
fn a_directory_with_files_of_the_engine_is_told_of_with_others() {
    let before = "mkdir etc; echo 1 >etc/passwd; touch -d @1 etc/passwd";
    assert_eq!(after(before, "touch etc/hosts"), Vec::<String>::new());
    let told = after(before, "touch etc/hosts; echo 2 >>etc/passwd");
    assert_eq!(told, ["C /etc", "C /etc/passwd"]);
}
