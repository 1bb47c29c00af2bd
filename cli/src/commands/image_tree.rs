//! `images --tree`: each image with the platforms of the index that it came as.

use gantry_wire::{ImageSummary, ManifestSummary};

use crate::format::short_id;
use crate::format::units::human_size;

const HEADINGS: [(&str, usize, Align); 4] = [
    ("ID", 12, Align::Left),
    ("DISK USAGE", 10, Align::Right),
    ("CONTENT SIZE", 12, Align::Right),
    ("EXTRA", 5, Align::Left),
];
const GAP: &str = "   ";
/// What the first column never gets narrower than.
const MIN_NAME: usize = 12;

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

/// One line: a name or platform, then the cells of the other columns, none on the lines of further names.
struct Line {
    first: String,
    cells: Option<[String; 4]>,
}

/// The tree for a terminal of so many columns.
pub(super) fn render(images: &[ImageSummary], width: usize) -> String {
    let lines: Vec<Vec<Line>> = images.iter().map(lines_of).collect();
    let mut shown = HEADINGS.len();
    let mut room = width.max(20);
    for (at, (_, column, _)) in HEADINGS.iter().enumerate() {
        let column = column + GAP.len();
        if room < column + MIN_NAME {
            shown = at;
            break;
        }
        room -= column;
    }
    let widest = lines
        .iter()
        .flatten()
        .map(|line| line.first.chars().count());
    let first = widest.max().unwrap_or(0).max("IMAGE".len()).min(room);
    let mut out = fit("IMAGE", first, Align::Left);
    for (heading, width, align) in &HEADINGS[..shown] {
        out += GAP;
        out += &fit(heading, *width, *align);
    }
    out.push('\n');
    // Space between images where any has platforms to show.
    let spaced = images
        .iter()
        .any(|image| image.manifests.iter().flatten().any(is_image));
    for image in &lines {
        for line in image {
            out += &fit(&line.first, first, Align::Left);
            for (cell, (_, width, align)) in line.cells.iter().flatten().zip(&HEADINGS[..shown]) {
                out += GAP;
                out += &fit(cell, *width, *align);
            }
            out.push('\n');
        }
        if spaced {
            out.push('\n');
        }
    }
    out
}

fn is_image(manifest: &ManifestSummary) -> bool {
    manifest.kind == "image"
}

fn lines_of(image: &ImageSummary) -> Vec<Line> {
    let manifests = image.manifests.as_deref().unwrap_or_default();
    let children: Vec<&ManifestSummary> = manifests.iter().filter(|m| is_image(m)).collect();
    let content: i64 = manifests.iter().map(|manifest| manifest.size.content).sum();
    let used = |child: &ManifestSummary| {
        let data = child.image_data.as_ref();
        data.is_some_and(|data| !data.containers.is_empty())
    };
    let in_use = image.containers > 0 || children.iter().any(|child| used(child));
    let cells = cells(&image.id, image.size, content, in_use);
    let mut names = image.repo_tags.clone();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    if names.is_empty() {
        names.push("<untagged>".into());
    }
    let last = names.len() - 1;
    let mut lines: Vec<Line> = names
        .into_iter()
        .enumerate()
        .map(|(at, first)| Line {
            first,
            cells: (at == last).then(|| cells.clone()),
        })
        .collect();
    for (at, child) in children.iter().enumerate() {
        let branch = if at + 1 == children.len() {
            "└─ "
        } else {
            "├─ "
        };
        lines.push(Line {
            first: format!("{branch}{}", platform(child)),
            cells: Some(self::cells(
                &child.id,
                child.size.total,
                child.size.content,
                used(child),
            )),
        });
    }
    lines
}

fn cells(id: &str, usage: i64, content: i64, used: bool) -> [String; 4] {
    let mark = if used { "U" } else { "" };
    [
        short_id(id).into(),
        human_size(usage as f64),
        human_size(content as f64),
        mark.into(),
    ]
}

fn platform(manifest: &ManifestSummary) -> String {
    let platform = manifest
        .image_data
        .as_ref()
        .and_then(|data| data.platform.as_ref());
    let Some(platform) = platform else {
        return "unknown".into();
    };
    let variant = platform
        .variant
        .as_deref()
        .filter(|variant| !variant.is_empty());
    let parts = [Some(&*platform.os), Some(&*platform.architecture), variant];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// The text in so many columns, cut off where it is longer.
fn fit(text: &str, width: usize, align: Align) -> String {
    let length = text.chars().count();
    if length > width {
        let kept: String = text.chars().take(width.saturating_sub(3)).collect();
        return kept + "...";
    }
    let fill = width - length;
    let left = match align {
        Align::Left => 0,
        Align::Right => fill,
    };
    format!("{}{text}{}", " ".repeat(left), " ".repeat(fill - left))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn platforms_stand_under_their_image() {
        let image = |size: i64| {
            json!({"Id": format!("sha256:{}", "a".repeat(64)), "RepoTags": ["x:1", "y:1"], "Size": size, "Containers": 1,
            "Manifests": [
                {"ID": format!("sha256:{}", "b".repeat(64)), "Kind": "image", "Available": true,
                 "Size": {"Content": 1000, "Total": 3000},
                 "ImageData": {"Platform": {"os": "linux", "architecture": "amd64"}, "Containers": ["c"]}},
                {"ID": format!("sha256:{}", "c".repeat(64)), "Kind": "attestation", "Size": {"Content": 10}},
                {"ID": format!("sha256:{}", "d".repeat(64)), "Kind": "image", "Size": {"Content": 0, "Total": 0},
                 "ImageData": {"Platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}},
            ]})
        };
        let images: Vec<ImageSummary> = serde_json::from_value(json!([image(2000)])).unwrap();
        let shown = render(&images, 80);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "IMAGE             ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "x:1",
                "y:1               aaaaaaaaaaaa          2kB         1.01kB   U",
                "├─ linux/amd64    bbbbbbbbbbbb          3kB            1kB   U",
                "└─ linux/arm/v7   dddddddddddd           0B             0B",
                "",
            ]
        );
        assert!(
            render(&images, 20)
                .lines()
                .all(|line| line.chars().count() <= 20)
        );
    }
}
