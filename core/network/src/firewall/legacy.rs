//! Tables of iptables in its old form. The kernel calls them beside nftables; they are others' to change, and reported.

use std::sync::atomic::Ordering;

use gantry_sys::xtables;

use super::Firewall;

impl Firewall {
    /// What such tables keep from working at present.
    pub(crate) fn legacy_warnings(&self) -> Vec<String> {
        if self.state.is_none() {
            return Vec::new();
        }
        let families = [(false, "iptables-legacy"), (true, "ip6tables-legacy")];
        let dropping = families.into_iter().filter(|(v6, _)| {
            // Who may not ask is not in charge of it either.
            xtables::drops_forwarded(*v6).unwrap_or_default()
        });
        dropping
            .map(|(_, program)| {
                format!(
                    "WARNING: {program} drops forwarded packets by default, which no other rule can override: containers \
                     neither reach other hosts nor are reached by them. Let them pass with `{program} -P FORWARD ACCEPT`"
                )
            })
            .collect()
    }

    /// Writes it into the log, once for each time that it begins.
    pub(crate) fn complain_of_legacy(&self) {
        let warnings = self.legacy_warnings();
        let before = self
            .complained
            .swap(!warnings.is_empty(), Ordering::Relaxed);
        for warning in warnings.iter().filter(|_| !before) {
            tracing::warn!("{}", warning.trim_start_matches("WARNING: "));
        }
    }
}
