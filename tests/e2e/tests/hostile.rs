//! Hostile archives through the API: into a container, as images, and what is left afterwards.

use std::fs;

use gantry_e2e::{Engine, run};

/// Makes a tar with Python's library, which writes what it is told.
const MAKE: &str = r"
import io, sys, tarfile
out, kind, outside = sys.argv[1:]
tar = tarfile.open(out, 'w', format=tarfile.GNU_FORMAT)
def add(name, type=tarfile.REGTYPE, link='', data=b'', size=None):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, link, len(data) if size is None else size
    tar.addfile(info, io.BytesIO(data)) if size is None else tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
if kind == 'names':
    add('../../../../../../../..' + outside + '/secret', data=b'hit')
    add(outside + '/secret', data=b'hit')
elif kind == 'symlink':
    add('s', tarfile.SYMTYPE, outside)
    add('s/secret', data=b'hit')
elif kind == 'relative':
    add('s', tarfile.SYMTYPE, '../' * 20 + outside[1:])
    add('s/secret', data=b'hit')
elif kind == 'hardlink':
    add('h', tarfile.LNKTYPE, outside + '/secret')
    add('h', data=b'hit')
elif kind == 'swap':
    add('d', tarfile.DIRTYPE)
    add('d', tarfile.SYMTYPE, outside)
    add('d/secret', data=b'hit')
elif kind == 'whiteout':
    add('.wh...', data=b'')
    add('.wh..wh..opq', data=b'')
elif kind == 'circle':
    add('a', tarfile.SYMTYPE, 'b')
    add('b', tarfile.SYMTYPE, 'a')
    add('a/x', data=b'hit')
elif kind == 'huge':
    add('f', size=1 << 40)
if kind != 'huge':
    tar.close()
else:
    tar.fileobj.flush()
";

/// Each with whether putting it into a container's directory fails.
const KINDS: [(&str, bool); 8] = [
    ("names", false),
    ("symlink", true),
    ("relative", true),
    ("hardlink", true),
    ("swap", true),
    ("whiteout", false),
    ("circle", true),
    ("huge", true),
];

#[test]
fn archives_cannot_leave_what_they_are_unpacked_into() {
    let engine = Engine::start();
    // In the host's tree and in nobody's container.
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    engine
        .docker(&["run", "-d", "--name", "victim", "busybox", "sleep", "1000"])
        .ok();
    let images = engine.docker(&["images", "-aq"]).ok();
    for (kind, refused) in KINDS {
        let file = engine.dir().join(format!("{kind}.tar"));
        let arguments = [
            "-c",
            MAKE,
            file.to_str().unwrap(),
            kind,
            outside.path().to_str().unwrap(),
        ];
        run("python3", &arguments).ok();
        let target = format!("/in-{kind}");
        engine.docker(&["exec", "victim", "mkdir", &target]).ok();
        let path = format!("/containers/victim/archive?path={target}");
        let (code, body) = engine.send_tar("PUT", &path, &file);
        assert_eq!(code != 200, refused, "{kind}: {code} {body}");
        assert!(!refused || body.contains("\"message\""), "{kind}: {body}");
        let (code, body) = engine.send_tar("POST", "/images/load", &file);
        assert!(
            code == 400 || body.contains("error"),
            "{kind}: {code} {body}"
        );
        if refused {
            let (code, body) = engine.send_tar("POST", "/images/create?fromSrc=-&repo=evil", &file);
            assert!(
                code >= 400 || body.contains("\"error\""),
                "{kind}: {code} {body}"
            );
            assert_eq!(engine.docker(&["images", "-aq"]).ok(), images, "{kind}");
        }
        assert_eq!(fs::read(&secret).unwrap(), b"untouched", "{kind}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{kind}");
    }
    let names = ["exec", "victim", "ls", "-a", "/in-whiteout"];
    let left = engine.docker(&names).ok();
    // Deletions are names like others to a container.
    assert!(
        left.contains(".wh...") && left.contains(".wh..wh..opq"),
        "{left}"
    );
    engine.finish();
}
