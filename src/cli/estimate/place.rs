//! Where an estimate is made for: a known machine, a configured backend, or this machine.

use super::subject::Subject;
use crate::config::{BackendConfig, Config};
use crate::error::{AppError, Exit};
use crate::paths::Paths;
use crate::router::machines::{self, Kind, Load, Machine, Placement, place_within};

/// This machine's name among backends.
const LOCAL: &str = crate::backend::LOCAL;

/// A machine under the name it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    machine: Machine,
    /// Bytes models may hold: on the accelerator, and in main memory.
    pub(super) usable: (u64, u64),
    /// Whether it is a backend, which may have measured the model.
    pub(super) is_backend: bool,
    /// Measured prefill and decode, in tokens per second.
    pub(super) measured: Option<(f64, f64)>,
}

impl Place {
    pub(super) fn known(name: &str) -> Result<Self, String> {
        let machine = machines::find(name)?;
        Ok(Self {
            name: name.to_owned(),
            machine,
            usable: machine.usable(),
            is_backend: false,
            measured: None,
        })
    }

    fn of_backend(backend: &BackendConfig) -> Result<Self, AppError> {
        let wrong = |why: String| AppError::new(Exit::Usage, format!("backend `{}`: {why}", backend.name));
        let Some(hardware) = backend.hardware.as_deref() else {
            return Err(wrong("its `hardware` is not known".to_owned())
                .hint("set `hardware` in its [[backend]] to a name of `tui estimate --machines`"));
        };
        let known = Self::known(hardware).map_err(wrong)?;
        let usable = match (backend.memory, known.usable) {
            (Some(memory), (0, _)) => (0, memory.0),
            (Some(memory), (_, host)) => (memory.0, host),
            (None, usable) => usable,
        };
        Ok(Self { name: backend.name.clone(), usable, is_backend: true, ..known })
    }

    pub(super) const fn kind(&self) -> Kind {
        self.machine.kind
    }

    pub(super) fn put(&self, load: &Load) -> Placement {
        place_within(load, &self.machine, self.usable)
    }

    /// Takes what this backend measured of the model, where it lists it.
    pub(super) fn ask_speeds(&mut self, subject: &Subject) {
        let Some((_, listing)) = subject.listings.iter().find(|(name, _)| *name == self.name) else { return };
        let kept = listing.residency.iter().find(|kept| kept.id == subject.name);
        let speeds = kept.and_then(|kept| kept.prefill_tokens_per_s.zip(kept.decode_tokens_per_s));
        self.measured = speeds.filter(|(prefill, decode)| *prefill > 0.0 && *decode > 0.0);
    }

    /// What the machine is, one line.
    pub(super) fn describe(&self) -> String {
        format!("{}, {:.0} GB/s", self.machine.title, self.machine.bandwidth / 1e9)
    }
}

/// The places of these names, each once; with no name this machine and the configured backends whose hardware is known.
///
/// # Errors
/// Exit code 2: a name nobody knows, or no place at all.
pub(super) fn find(names: &[&str], config: &Config, paths: &Paths) -> Result<Vec<Place>, AppError> {
    let mut places: Vec<Place> = Vec::new();
    for name in names {
        if places.iter().any(|place| place.name == *name) {
            continue;
        }
        let place = if let Some(backend) = config.backends.iter().find(|backend| backend.name == *name) {
            Place::of_backend(backend)?
        } else if *name == LOCAL {
            here(paths)?
        } else {
            Place::known(name).map_err(|why| {
                AppError::new(Exit::Usage, why).hint("`tui estimate --machines` lists those that are known")
            })?
        };
        places.push(place);
    }
    if names.is_empty() {
        places.extend(here(paths).ok());
        let known = config.backends.iter().filter(|backend| backend.hardware.is_some());
        for backend in known {
            places.push(Place::of_backend(backend)?);
        }
    }
    if places.is_empty() {
        return Err(AppError::new(Exit::Usage, "no machine to estimate on")
            .hint("name one, as --on rtx4090; `tui estimate --machines` lists them"));
    }
    Ok(places)
}

/// This machine, as llama.cpp sees it. Its devices are looked at in a process of its own.
#[cfg(feature = "local")]
fn here(paths: &Paths) -> Result<Place, AppError> {
    let model = crate::engine::builtin::unpack(paths)?;
    let findings = crate::engine::inspect::inspect(&model)
        .map_err(|why| AppError::new(Exit::Error, format!("this machine can't be looked at: {why}")))?;
    let cards: Vec<_> = findings.devices.iter().filter(|device| device.is_accelerator()).collect();
    let main = crate::engine::memory::available().unwrap_or(0) / 100 * 85;
    let Some(card) = cards.first() else {
        let cpu = machines::find("cpu").map_err(|why| AppError::new(Exit::Error, why))?;
        return Ok(Place {
            name: LOCAL.to_owned(),
            machine: cpu,
            usable: (0, main),
            is_backend: true,
            measured: None,
        });
    };
    let count = u32::try_from(cards.len()).unwrap_or(1);
    let machine = machines::of_device(&card.description, card.total, count).ok_or_else(|| {
        AppError::new(Exit::Usage, format!("this machine's {} is not in the table", card.description))
            .hint("name one like it with --on; `tui estimate --machines` lists them")
    })?;
    let (device, _) = machine.usable();
    // What the table leaves as a margin, taken from what is free now.
    let margin = machine.memory.saturating_sub(device);
    let free: u64 = cards.iter().map(|device| device.free).sum();
    let usable = match machine.kind {
        Kind::Cards(_) => (free.saturating_sub(margin), main),
        _ => (free.min(device), 0),
    };
    Ok(Place { name: LOCAL.to_owned(), machine, usable, is_backend: true, measured: None })
}

#[cfg(not(feature = "local"))]
fn here(_: &Paths) -> Result<Place, AppError> {
    Err(AppError::new(Exit::Usage, "this build has no engine to estimate for")
        .hint("name a machine, as --on rtx4090; `tui estimate --machines` lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;
    use crate::router::shapes;
    use pretty_assertions::assert_eq;

    fn config(hardware: Option<&str>, memory: Option<u64>) -> Config {
        let backend = BackendConfig {
            name: "mac".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            hardware: hardware.map(str::to_owned),
            memory: memory.map(ByteSize),
            ..BackendConfig::default()
        };
        Config { backends: vec![backend], ..Config::default() }
    }

    fn paths() -> Paths {
        let at = std::path::PathBuf::from("/tmp/duet-nowhere");
        Paths { config: at.clone(), data: at.clone(), cache: at.clone(), runtime: at }
    }

    #[test]
    fn a_backend_is_the_machine_it_is_said_to_be() {
        let usable = |config: &Config| find(&["mac"], config, &paths()).map(|places| places[0].usable);
        let (all, _) = machines::find("m4-max-64").expect("known").usable();
        assert_eq!(usable(&config(Some("m4-max-64"), None)), Ok((all, 0)));
        assert_eq!(usable(&config(Some("m4-max-64"), Some(5))), Ok((5, 0)));
        assert_eq!(usable(&config(Some("cpu-ddr5-64"), Some(5))), Ok((0, 5)));
        let error = usable(&config(None, None)).expect_err("not known");
        assert!(error.message.contains("`mac`: its `hardware` is not known"), "{error}");
        let error = usable(&config(Some("m4-max"), None)).expect_err("no such");
        assert!(error.message.contains("`m4-max-64`"), "{error}");
    }

    #[test]
    fn what_was_measured_there_counts() {
        let (shape, quant) = shapes::read("llama-3.1-8b").expect("known");
        let kept = |id: &str, speed| crate::chat::Residency {
            id: id.to_owned(),
            prefill_tokens_per_s: Some(speed),
            decode_tokens_per_s: Some(speed / 10.0),
            ..crate::chat::Residency::default()
        };
        let listing = crate::chat::Listing {
            residency: vec![kept("other", 5.0), kept("x", 700.0), kept("odd", 0.0)],
            ..crate::chat::Listing::default()
        };
        let measured = |name: &str| {
            let mut subject = Subject::of_shape(name.to_owned(), shape, quant);
            subject.listings = vec![("mac".to_owned(), listing.clone())];
            let mut place =
                find(&["mac"], &config(Some("m4-max-64"), None), &paths()).expect("known").remove(0);
            place.ask_speeds(&subject);
            place.measured
        };
        assert_eq!(measured("x"), Some((700.0, 70.0)));
        assert_eq!((measured("odd"), measured("unlisted")), (None, None));
    }

    #[test]
    fn names_are_taken_once_and_typos_answered() {
        let none = Config::default();
        let found = find(&["rtx4090", "rtx4090", "m4-16"], &none, &paths()).expect("known");
        assert_eq!(found.iter().map(|place| place.name.as_str()).collect::<Vec<_>>(), ["rtx4090", "m4-16"]);
        let error = find(&["rtx4900"], &none, &paths()).expect_err("a typo");
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains("`rtx4090`"), "{error}");
    }
}
