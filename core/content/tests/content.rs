//! The blob store on a real directory.

use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, Instant};

use gantry_content::{ContentStore, Error, Hasher};
use gantry_model::Digest;
use gantry_store::Store;

struct Fixture {
    dir: tempfile::TempDir,
    content: ContentStore,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let content = open(&dir);
        Self { dir, content }
    }

    fn ingests(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("content/ingest"))
            .unwrap()
            .count()
    }

    fn collect(&self, roots: &[&Digest]) -> Vec<Digest> {
        let roots: HashSet<Digest> = roots.iter().copied().cloned().collect();
        let collected = self.content.collect::<Error>(|| Ok(roots.clone())).unwrap();
        collected.blobs
    }
}

fn open(dir: &tempfile::TempDir) -> ContentStore {
    let store = Store::open(&dir.path().join("state")).unwrap();
    ContentStore::open(&dir.path().join("content"), &store).unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn a_blob_is_there_when_it_is_whole_and_right() {
    let fixture = Fixture::new();
    let content = &fixture.content;
    let digest = sha256(b"hello world");
    let mut ingest = content.begin(&digest, Some(11)).unwrap();
    ingest.write(b"hello ").unwrap();
    assert!(!content.contains(&digest));
    assert!(matches!(content.begin(&digest, None), Err(Error::Busy(_))));
    ingest.write(b"world").unwrap();
    assert_eq!(ingest.finish().unwrap(), digest);
    content.sync().unwrap();
    assert_eq!(content.read(&digest, 100).unwrap(), b"hello world");
    assert_eq!(content.size(&digest), Some(11));
    let mut text = String::new();
    content
        .open_blob(&digest)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello world");
    assert!(matches!(
        content.read(&digest, 10),
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(content.list().unwrap(), std::slice::from_ref(&digest));
    content.delete(&digest).unwrap();
    content.delete(&digest).unwrap();
    assert!(matches!(content.read(&digest, 10), Err(Error::NotFound(_))));
    assert_eq!(fixture.ingests(), 0);
}

#[test]
fn wrong_bytes_never_get_the_name() {
    let fixture = Fixture::new();
    let digest = sha256(b"right");
    let mut ingest = fixture.content.begin(&digest, Some(5)).unwrap();
    ingest.write(b"wrong").unwrap();
    assert!(matches!(ingest.finish(), Err(Error::Mismatch { .. })));
    assert!(!fixture.content.contains(&digest));
    assert_eq!(fixture.ingests(), 0, "damaged bytes are not resumed from");
    let mut ingest = fixture.content.begin(&digest, Some(5)).unwrap();
    assert!(matches!(
        ingest.write(b"too long"),
        Err(Error::Size {
            wanted: 5,
            found: 8,
            ..
        })
    ));
}

#[test]
fn a_blob_damaged_on_disk_is_noticed() {
    let fixture = Fixture::new();
    let digest = fixture.content.write(b"fine").unwrap();
    std::fs::write(fixture.content.path(&digest), b"rust").unwrap();
    assert!(matches!(
        fixture.content.read(&digest, 10),
        Err(Error::Mismatch { .. })
    ));
}

#[test]
fn a_partial_blob_is_gone_on_with_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let digest = sha256(b"hello world");
    {
        let content = open(&dir);
        let hour = Duration::from_secs(3600);
        drop(content.lease("l", vec![digest.clone()], hour).unwrap());
        let mut ingest = content.begin(&digest, Some(11)).unwrap();
        ingest.write(b"hello ").unwrap();
        assert!(matches!(
            ingest.finish(),
            Err(Error::Size {
                wanted: 11,
                found: 6,
                ..
            })
        ));
    }
    let content = open(&dir);
    content.collect::<Error>(|| Ok(HashSet::new())).unwrap();
    let mut ingest = content.begin(&digest, Some(11)).unwrap();
    assert_eq!(ingest.offset(), 6);
    let mut seen = Vec::new();
    ingest
        .replay(|bytes| {
            seen.extend_from_slice(bytes);
            true
        })
        .unwrap();
    assert_eq!(seen, b"hello ");
    ingest.write(b"world").unwrap();
    ingest.finish().unwrap();
    assert!(content.contains(&digest));
}

#[test]
fn a_partial_blob_that_is_too_long_is_begun_anew() {
    let fixture = Fixture::new();
    let digest = sha256(b"abc");
    let mut ingest = fixture.content.begin(&digest, None).unwrap();
    ingest.write(b"abcdef").unwrap();
    drop(ingest);
    let ingest = fixture.content.begin(&digest, Some(3)).unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.discard();
    assert_eq!(fixture.ingests(), 0);
}

#[test]
fn both_algorithms() {
    let fixture = Fixture::new();
    let zeros: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let mut hasher = Hasher::for_digest(&zeros);
    hasher.update(b"x");
    let digest = hasher.finish();
    assert_eq!(digest.algorithm(), "sha512");
    let mut ingest = fixture.content.begin_unnamed().unwrap();
    ingest.write(b"x").unwrap();
    ingest.finish_as(&digest).unwrap();
    assert_eq!(fixture.content.read(&digest, 1).unwrap(), b"x");
    let mut ingest = fixture.content.begin_unnamed().unwrap();
    ingest.write(b"y").unwrap();
    assert!(matches!(
        ingest.finish_as(&digest),
        Err(Error::Mismatch { .. })
    ));
}

#[test]
fn garbage_is_what_nobody_wants() {
    let fixture = Fixture::new();
    let content = &fixture.content;
    let rooted = content.write(b"rooted").unwrap();
    let leased = content.write(b"leased").unwrap();
    let loose = content.write(b"loose").unwrap();
    let hour = Duration::from_secs(3600);
    let lease = content.lease("l", vec![leased.clone()], hour).unwrap();
    assert_eq!(fixture.collect(&[&rooted]), [loose]);
    // A dropped lease holds on, as after a crash; a released or expired one does not.
    drop(lease);
    assert!(fixture.collect(&[&rooted]).is_empty());
    content
        .lease("l", vec![leased.clone()], hour)
        .unwrap()
        .release();
    assert_eq!(fixture.collect(&[&rooted]), std::slice::from_ref(&leased));
    content.write(b"leased").unwrap();
    drop(
        content
            .lease("old", vec![leased.clone()], Duration::ZERO)
            .unwrap(),
    );
    assert_eq!(fixture.collect(&[&rooted]), [leased]);
    assert!(content.contains(&rooted));
    let failed = content.collect(|| Err::<HashSet<Digest>, _>(Error::NotFound(rooted.clone())));
    assert!(failed.is_err() && content.contains(&rooted));
}

#[test]
fn a_hold_protects_what_comes_in_and_what_is_claimed() {
    let fixture = Fixture::new();
    let content = &fixture.content;
    let before = content.write(b"before").unwrap();
    let claimed = content.write(b"claimed").unwrap();
    let hold = content.hold();
    let new = content.write(b"new").unwrap();
    assert!(content.claim(&claimed));
    let later = content.hold();
    assert_eq!(fixture.collect(&[]), [before]);
    drop(hold);
    // The later hold has seen neither.
    let mut collected = fixture.collect(&[]);
    collected.sort();
    let mut wanted = [new, claimed];
    wanted.sort();
    assert_eq!(collected, wanted);
    drop(later);
}

#[test]
fn two_operations_have_one_lease() {
    let fixture = Fixture::new();
    let content = &fixture.content;
    let hour = Duration::from_secs(3600);
    let (a, b) = (content.write(b"a").unwrap(), content.write(b"b").unwrap());
    let first = content.lease("l", vec![a.clone()], hour).unwrap();
    let second = content.lease("l", vec![b.clone()], Duration::ZERO).unwrap();
    assert!(!content.end_lease("l"), "it is held");
    first.release();
    assert!(
        fixture.collect(&[]).is_empty(),
        "the second does not expire while it is held"
    );
    second.release();
    assert!(content.leases().is_empty());
    assert_eq!(fixture.collect(&[]).len(), 2);
}

#[test]
fn what_a_crash_left_of_a_collection_is_deleted_by_the_next() {
    let fixture = Fixture::new();
    let trash = fixture.dir.path().join("content/trash");
    std::fs::write(trash.join("sha256-00"), "left").unwrap();
    fixture.collect(&[]);
    let until = Instant::now() + Duration::from_secs(30);
    while std::fs::read_dir(&trash).unwrap().count() > 0 {
        assert!(Instant::now() < until, "the trash is not emptied");
        std::thread::yield_now();
    }
}

#[test]
fn a_partial_blob_without_a_lease_is_collected() {
    let fixture = Fixture::new();
    let digest = sha256(b"abc");
    let mut ingest = fixture.content.begin(&digest, Some(3)).unwrap();
    ingest.write(b"ab").unwrap();
    assert!(
        fixture.content.abandoned().unwrap().is_empty(),
        "it is being written"
    );
    drop(ingest);
    assert_eq!(fixture.content.abandoned().unwrap().len(), 1);
    fixture.collect(&[]);
    assert_eq!(fixture.ingests(), 0);
}

#[test]
fn unnamed_leftovers_are_collected() {
    let fixture = Fixture::new();
    std::fs::write(fixture.dir.path().join("content/ingest/new-1-1"), "left").unwrap();
    let active = fixture.content.begin_unnamed().unwrap();
    fixture.collect(&[]);
    assert_eq!(fixture.ingests(), 1, "the one being written stays");
    drop(active);
    assert_eq!(fixture.ingests(), 0);
}
