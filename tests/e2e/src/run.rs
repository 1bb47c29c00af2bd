//! Running commands and looking at what they said.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    fn new(line: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Self {
            line,
            code,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
    /// Standard output without surrounding white space, after checking for success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "{} failed\nstdout: {}\nstderr: {}",
            self.line, self.out, self.err
        );
        self.out.trim().to_owned()
    }
    /// Standard error, after checking that the command failed with `code` and says `wording` there.
    #[track_caller]
    pub fn fails(self, code: i32, wording: &str) -> String {
        assert_eq!(
            self.code, code,
            "{}\nstdout: {}\nstderr: {}",
            self.line, self.out, self.err
        );
        assert!(
            self.err.contains(wording),
            "{}: want {wording:?} in {:?}",
            self.line,
            self.err
        );
        self.err
    }
}

fn command<S: AsRef<OsStr>>(
    program: &OsStr,
    args: &[S],
    env: &[(String, String)],
) -> (Command, String) {
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
    let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    (
        command,
        format!("{} {}", program.to_string_lossy(), words.join(" ")),
    )
}

/// Runs a command to its end with nothing on standard input.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Done {
    run_env(program, args, &[])
}

/// Runs a command with additional environment.
pub fn run_env<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    env: &[(String, String)],
) -> Done {
    let (mut command, line) = command(program.as_ref(), args, env);
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    Done::new(line, &output)
}

/// Runs a command that reads `input`.
pub fn run_stdin<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    env: &[(String, String)],
    input: &[u8],
) -> Done {
    let (mut command, line) = command(program.as_ref(), args, env);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin was piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that does not read to the end is its own business.
        let _ = stdin.write_all(&input);
    });
    let output = child
        .wait_with_output()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    writer.join().expect("the writer ends");
    Done::new(line, &output)
}

/// Polls until `check` gives something, at most `seconds`.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
