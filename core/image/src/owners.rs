//! Owners of a tree whose numbers are not those of its archive: a container's, seen from outside of its user namespace.

/// A run of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRange {
    /// The first in archives.
    pub archive: u32,
    /// The first in the tree.
    pub tree: u32,
    /// How many.
    pub count: u32,
}

/// Users and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Users.
    pub users: Vec<OwnerRange>,
    /// Groups.
    pub groups: Vec<OwnerRange>,
}

/// Whom the kernel shows where a number has no counterpart.
const NOBODY: u32 = 65_534;

impl Owners {
    /// An owner in the tree as archives name it; without a counterpart: nobody.
    pub(crate) fn to_archive(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let find = |ranges: &[OwnerRange], id| {
            shift(ranges.iter().map(|r| (r.tree, r.archive, r.count)), id).unwrap_or(NOBODY)
        };
        (find(&self.users, uid), find(&self.groups, gid))
    }

    /// An owner in an archive as the tree names it.
    pub(crate) fn to_tree(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        let find = |ranges: &[OwnerRange], id| {
            shift(ranges.iter().map(|r| (r.archive, r.tree, r.count)), id)
        };
        Some((find(&self.users, uid)?, find(&self.groups, gid)?))
    }
}

/// `id` in the first of the runs (from, to, count) that has it.
fn shift(mut runs: impl Iterator<Item = (u32, u32, u32)>, id: u32) -> Option<u32> {
    runs.find_map(|(from, to, count)| {
        let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
        to.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let range = |archive, tree, count| OwnerRange {
            archive,
            tree,
            count,
        };
        let owners = Owners {
            users: vec![range(0, 100_000, 10), range(50, 5, 1)],
            groups: vec![range(0, 200_000, 10)],
        };
        assert_eq!(owners.to_tree((9, 0)), Some((100_009, 200_000)));
        assert_eq!(owners.to_tree((50, 9)), Some((5, 200_009)));
        assert_eq!(owners.to_tree((10, 0)), None);
        assert_eq!(owners.to_archive((100_009, 200_001)), (9, 1));
        assert_eq!(owners.to_archive((5, 0)), (50, NOBODY));
    }
}
