//! Hooks of a specification: programs that run at points of a container's life.

use gantry_monitor::plan::{Hook, Hooks};
use oci_spec::runtime as oci;

use crate::spec::SpecError;

/// Without the container's state, which only its maker knows.
pub(super) fn hooks(hooks: Option<&oci::Hooks>) -> Result<Hooks, SpecError> {
    let Some(given) = hooks else {
        return Ok(Hooks::default());
    };
    let list = |hooks: &Option<Vec<oci::Hook>>| -> Result<Vec<Hook>, SpecError> {
        hooks.iter().flatten().map(hook).collect()
    };
    // The old name of createRuntime; such hooks go first.
    #[allow(deprecated)]
    let mut create_runtime = list(given.prestart())?;
    create_runtime.extend(list(given.create_runtime())?);
    Ok(Hooks {
        state: String::new(),
        create_runtime,
        create_container: list(given.create_container())?,
        start_container: list(given.start_container())?,
        poststart: list(given.poststart())?,
        poststop: list(given.poststop())?,
    })
}

fn hook(hook: &oci::Hook) -> Result<Hook, SpecError> {
    let invalid = |what: &str| SpecError::Invalid(format!("hook {:?}: {what}", hook.path()));
    if !hook.path().is_absolute() {
        return Err(invalid("want an absolute path"));
    }
    let timeout = hook.timeout().map(u32::try_from).transpose();
    let timeout = timeout.ok().filter(|timeout| *timeout != Some(0));
    let args = hook.args().clone().unwrap_or_default();
    Ok(Hook {
        path: hook.path().clone(),
        args: match args.is_empty() {
            true => vec![hook.path().display().to_string()],
            false => args,
        },
        env: hook.env().clone().unwrap_or_default(),
        timeout: timeout.ok_or_else(|| invalid("invalid timeout"))?,
    })
}
