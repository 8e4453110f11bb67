//! The help: every command with its slash name and keys. Made from the two tables, drawn by `ui`.

use super::table::keys;
use crate::command::{COMMANDS, Group};

/// One row of the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelpRow {
    /// A heading.
    Heading(&'static str),
    /// A command.
    Entry {
        /// `/model [name]`, or empty.
        slash: String,
        /// Its keys, best first.
        keys: Vec<String>,
        /// One line about it.
        about: &'static str,
    },
}

/// The whole help, group by group.
#[must_use]
pub fn help() -> Vec<HelpRow> {
    let mut rows = Vec::new();
    for group in Group::ALL {
        rows.push(HelpRow::Heading(group.title()));
        rows.extend(COMMANDS.iter().filter(|spec| spec.group == group).map(|spec| {
            let slash = match (spec.slash.first(), spec.argument) {
                (None, _) => String::new(),
                (Some(name), "") => format!("/{name}"),
                (Some(name), argument) => format!("/{name} {argument}"),
            };
            HelpRow::Entry { slash, keys: keys(spec.command), about: spec.about }
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn nothing_is_left_out() {
        let rows = help();
        assert_eq!(rows.len(), COMMANDS.len() + Group::ALL.len());
        assert!(rows.contains(&HelpRow::Entry {
            slash: "/model [name]".to_owned(),
            keys: vec!["f2".to_owned(), "ctrl+x m".to_owned()],
            about: "choose the model of the next turn",
        }));
    }
}
