//! `[route]`, `[[alias]]`, `[warm]` and `[privacy]`: where turns go, and what never leaves.

use super::BackendConfig;
use serde::{Deserialize, Serialize};

/// How turns find their machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// What counts most.
    pub policy: Policy,
    /// Backend of models with fewer weights than `large_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small: Option<String>,
    /// Backend of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large: Option<String>,
    /// Weights, in thousand millions, from which a model counts as large.
    pub large_from: f64,
    /// Whether a turn whose machine fails before the first text moves to another one.
    pub fallback: Fallback,
    /// Hours in which noisy machines are avoided, as `"22:00-07:00"`, in local time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<String>,
    /// Seconds without any byte, after the first text, until a stream counts as stalled.
    pub stall: u64,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            policy: Policy::Balanced,
            small: None,
            large: None,
            large_from: 30.0,
            fallback: Fallback::Ask,
            quiet_hours: None,
            stall: 30,
        }
    }
}

impl RouteConfig {
    /// Checks what the types can't say, of the aliases as well.
    ///
    /// # Errors
    /// What is wrong, and the next step.
    pub fn check(&self, aliases: &[AliasConfig], backends: &[BackendConfig]) -> Result<(), (String, String)> {
        let is_known = |name: &str| name == "local" || backends.iter().any(|backend| backend.name == name);
        let known = || {
            let names = backends.iter().map(|backend| backend.name.as_str());
            format!("there is {}", std::iter::once("local").chain(names).collect::<Vec<_>>().join(", "))
        };
        for (key, name) in [("small", &self.small), ("large", &self.large)] {
            if let Some(name) = name.as_ref().filter(|name| !is_known(name)) {
                return Err((format!("`route.{key}`: no backend `{name}`"), known()));
            }
        }
        if !(self.large_from.is_finite() && self.large_from > 0.0) {
            return Err((
                "`route.large_from` must be above 0".to_owned(),
                "it is thousand millions of weights; 30 is the default".to_owned(),
            ));
        }
        if let Some(hours) = self.quiet_hours.as_ref().filter(|hours| QuietHours::parse(hours).is_none()) {
            return Err((
                format!("`route.quiet_hours` can't be \"{hours}\""),
                "write it as \"22:00-07:00\"".to_owned(),
            ));
        }
        for (index, alias) in aliases.iter().enumerate() {
            let name = &alias.name;
            let bad =
                name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
            if bad {
                return Err((
                    format!("alias {} has the name {name:?}", index + 1),
                    "a name is one word without `/`, as `fast`".to_owned(),
                ));
            }
            if is_known(name) {
                return Err((
                    format!("alias `{name}` has the name of a backend"),
                    "rename one of them".to_owned(),
                ));
            }
            if aliases.iter().take(index).any(|before| &before.name == name) {
                return Err((format!("two aliases are named `{name}`"), "rename one of them".to_owned()));
            }
            if alias.targets.is_empty() {
                return Err((
                    format!("alias `{name}` has no targets"),
                    "list them, as targets = [\"local/qwen-7b\"]".to_owned(),
                ));
            }
            for target in alias.targets.iter().chain(&alias.variants) {
                match target.split_once('/') {
                    Some((backend, model)) if is_known(backend) && !model.is_empty() => {}
                    Some((backend, _)) if !is_known(backend) => {
                        return Err((
                            format!("alias `{name}`: no backend `{backend}` for `{target}`"),
                            known(),
                        ));
                    }
                    _ => {
                        return Err((
                            format!("alias `{name}`: `{target}` is no target"),
                            "a target is `backend/model`".to_owned(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Hours of the day, possibly over midnight, in minutes since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    from: u16,
    to: u16,
}

impl QuietHours {
    /// Reads `22:00-07:00`; none where it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let minutes = |clock: &str| {
            let (hours, minutes) = clock.trim().split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (from, to) = text.split_once('-')?;
        Some(Self { from: minutes(from)?, to: minutes(to)? })
    }

    /// Whether this minute of the day (0 to 1439) lies in them; the last one does not.
    #[must_use]
    pub const fn holds(self, minute: u16) -> bool {
        if self.from <= self.to {
            self.from <= minute && minute < self.to
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// What counts most when several machines can answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The first text.
    Snappy,
    /// The first text, and no waiting while reading.
    #[default]
    Balanced,
    /// The whole answer.
    Finish,
    /// The silent machine.
    Quiet,
    /// Energy.
    Saver,
}

/// What happens when a machine fails before the first text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The other machine is offered.
    #[default]
    Ask,
    /// The turn moves by itself; the receipt says so.
    Auto,
    /// Nothing: the turn has failed.
    Never,
}

/// A name for several targets: the same model on two machines, or a class of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasConfig {
    /// The name, as in `-m NAME` and `/NAME`.
    pub name: String,
    /// Targets, each `backend/model`.
    pub targets: Vec<String>,
    /// Targets that are the same model in another quantisation or format; they are taken after `targets`, and the receipt
    /// names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// Which of them answers.
    #[serde(default)]
    pub pick: Pick,
}

/// Which target of an alias answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The one that costs least now.
    #[default]
    Cheapest,
    /// The first one that can.
    First,
}

/// Getting ready while the person types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmConfig {
    /// Whether the target is connected, its model loaded and the conversation prefilled before Enter.
    pub on_typing: bool,
    /// Whether that also goes to paired engines of ours on other machines.
    pub remote: bool,
    /// Whether it goes on without mains power.
    pub on_battery: bool,
    /// Pause in typing, in milliseconds, after which the draft is prefilled.
    pub pause_ms: u64,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self { on_typing: true, remote: true, on_battery: false, pause_ms: 700 }
    }
}

/// What never leaves this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    /// Patterns of files (`~/private/**`, `*.pem`) whose contents stay here, and on machines marked `private`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_leave: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn alias(name: &str, targets: &[&str]) -> AliasConfig {
        AliasConfig {
            name: name.to_owned(),
            targets: targets.iter().map(|t| (*t).to_owned()).collect(),
            variants: Vec::new(),
            pick: Pick::Cheapest,
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let mac = BackendConfig {
            name: "mac".to_owned(),
            url: "http://mac".to_owned(),
            ..BackendConfig::default()
        };
        let check = |route: RouteConfig, aliases: &[AliasConfig]| {
            route
                .check(aliases, std::slice::from_ref(&mac))
                .err()
                .map(|(what, hint)| format!("{what}: {hint}"))
        };
        let route = RouteConfig::default;
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(check(RouteConfig { small: named("local"), large: named("mac"), ..route() }, &[]), None);
        assert_eq!(check(route(), &[alias("fast", &["local/a", "mac/org/b"])]), None);
        for (route, aliases, words) in [
            (
                RouteConfig { large: named("cuda"), ..route() },
                vec![],
                "`route.large`: no backend `cuda`: there is local, mac",
            ),
            (RouteConfig { large_from: 0.0, ..route() }, vec![], "above 0"),
            (RouteConfig { large_from: f64::NAN, ..route() }, vec![], "above 0"),
            (RouteConfig { quiet_hours: named("late"), ..route() }, vec![], "22:00-07:00"),
            (route(), vec![alias("a b", &["mac/x"])], "one word"),
            (route(), vec![alias("mac", &["mac/x"])], "name of a backend"),
            (route(), vec![alias("a", &["mac/x"]), alias("a", &["mac/x"])], "two aliases"),
            (route(), vec![alias("a", &[])], "no targets"),
            (route(), vec![alias("a", &["cuda/x"])], "no backend `cuda`"),
            (route(), vec![alias("a", &["mac"])], "is no target"),
            (route(), vec![alias("a", &["mac/"])], "is no target"),
        ] {
            let said = check(route, &aliases).expect("refused");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn quiet_hours_go_over_midnight() {
        let night = QuietHours::parse("22:00-07:00").expect("hours");
        assert_eq!(
            [21 * 60 + 59, 22 * 60, 0, 6 * 60 + 59, 7 * 60].map(|m| night.holds(m)),
            [false, true, true, true, false]
        );
        let noon = QuietHours::parse("12:00 - 13:30").expect("hours");
        assert_eq!([719, 720, 809, 810].map(|m| noon.holds(m)), [false, true, true, false]);
        for bad in ["", "22", "22:00", "24:00-01:00", "22:60-01:00", "a:b-c:d", "-1:00-2:00"] {
            assert_eq!(QuietHours::parse(bad), None, "{bad}");
        }
    }
}
