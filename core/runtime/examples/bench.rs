#[path = "../tests/common/mod.rs"]
mod common;
use common::*;
use std::time::Instant;
#[tokio::main]
async fn main() {
    let bed = Bed::new("bench").await;
    let n = 100;
    let mut t = vec![vec![]; 6];
    for _ in 0..n {
        let mut input = bed.shell("true");
        input.argv = vec!["/bin/true".into()];
        let a = Instant::now();
        let mut request = bed.request(&input);
        request.log = None;
        let b = Instant::now();
        let p = bed.runtime.create(request).await.unwrap();
        let c = Instant::now();
        p.start().await.unwrap();
        let d = Instant::now();
        p.wait().await.unwrap();
        let e = Instant::now();
        p.delete().await.unwrap();
        let f = Instant::now();
        for (i, x) in [b - a, c - b, d - c, e - d, f - e, f - a]
            .into_iter()
            .enumerate()
        {
            t[i].push(x.as_micros());
        }
    }
    for (i, name) in ["spec+dirs", "create", "start", "wait", "delete", "total"]
        .iter()
        .enumerate()
    {
        t[i].sort();
        println!(
            "{name}: median {} min {} p90 {}",
            t[i][n / 2],
            t[i][0],
            t[i][n * 9 / 10]
        );
    }
}
