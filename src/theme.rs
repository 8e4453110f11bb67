//! Themes: a role of the interface to a style. The only module that may name RGB colours.
//!
//! [`file`] reads the TOML; here are the roles, the total table and where themes come from.

mod file;

use ratatui::style::{Modifier, Style};
use std::path::Path;

/// What a piece of the screen is for. A theme gives each a style.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Ordinary text.
    Text,
    /// What may be overlooked: receipts, hints, rules.
    Dim,
    /// The one accent.
    Accent,
    /// The bar beside what the person said.
    User,
    /// Inline code, and code without a grammar.
    Code,
    /// It went well.
    Good,
    /// Worth a look.
    Warn,
    /// Trouble.
    Bad,
    /// This machine.
    Local,
    /// The other machine.
    Remote,
    /// Headings.
    Heading,
    /// Links.
    Link,
    /// The marked row of a list.
    Selection,
    /// Keywords of a programming language.
    Keyword,
    /// Strings.
    String,
    /// Comments.
    Comment,
    /// Numbers and other literals.
    Number,
    /// Names of functions.
    Function,
    /// Names of types.
    Type,
    /// Attributes, decorators and keys.
    Attribute,
    /// Operators.
    Operator,
    /// Brackets, commas and the like.
    Punctuation,
}

impl Role {
    /// All roles with the names theme files use.
    pub const ALL: [(Self, &'static str); 22] = [
        (Self::Text, "text"),
        (Self::Dim, "dim"),
        (Self::Accent, "accent"),
        (Self::User, "user"),
        (Self::Code, "code"),
        (Self::Good, "good"),
        (Self::Warn, "warn"),
        (Self::Bad, "bad"),
        (Self::Local, "local"),
        (Self::Remote, "remote"),
        (Self::Heading, "heading"),
        (Self::Link, "link"),
        (Self::Selection, "selection"),
        (Self::Keyword, "keyword"),
        (Self::String, "string"),
        (Self::Comment, "comment"),
        (Self::Number, "number"),
        (Self::Function, "function"),
        (Self::Type, "type"),
        (Self::Attribute, "attribute"),
        (Self::Operator, "operator"),
        (Self::Punctuation, "punctuation"),
    ];
}

/// Themes that come with the program, the default first.
const BUILT_IN: [(&str, &str); 3] = [
    ("default", include_str!("../themes/default.toml")),
    ("light", include_str!("../themes/light.toml")),
    ("high-contrast", include_str!("../themes/high-contrast.toml")),
];

/// Which characters the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// All of them.
    #[default]
    Unicode,
    /// Of borders and marks only those of ASCII.
    Ascii,
}

impl Charset {
    /// Reads the locale: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that says something. Where none does,
    /// the terminal is taken for a modern one.
    #[must_use]
    pub fn from_env() -> Self {
        let locales = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
        Self::of(locales.iter().map(String::as_str))
    }

    fn of<'a>(mut locales: impl Iterator<Item = &'a str>) -> Self {
        let Some(locale) = locales.find(|locale| !locale.is_empty()) else { return Self::Unicode };
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::Unicode } else { Self::Ascii }
    }
}

/// A style for every role.
#[derive(Clone, Debug, PartialEq)]
pub struct Theme {
    /// Its name.
    pub name: String,
    /// What borders and marks are made of.
    pub charset: Charset,
    styles: [Style; Role::ALL.len()],
}

impl Theme {
    /// Loads a theme by name from the user's folder, else from those in the binary. Problems inside the
    /// file are warnings (one line each); the entry keeps its default.
    ///
    /// # Errors
    /// One line naming the themes there are, when there is none of this name.
    pub fn load(name: &str, user_dir: Option<&Path>) -> Result<(Self, Vec<String>), String> {
        let mut warnings = Vec::new();
        let mut theme = Self {
            name: name.to_owned(),
            charset: Charset::default(),
            styles: [Style::new(); Role::ALL.len()],
        };
        // Every theme starts from the default, so that the table is total.
        if let Some((_, base)) = BUILT_IN.first() {
            file::apply(&mut theme, base, "default", &mut warnings);
        }
        if !file::apply_named(&mut theme, name, user_dir, &mut warnings) {
            let names = Self::names(user_dir).join(", ");
            return Err(format!("no theme `{name}`; there is {names}"));
        }
        Ok((theme, warnings))
    }

    /// Names of all themes: the built-in ones, then those of the user's folder.
    #[must_use]
    pub fn names(user_dir: Option<&Path>) -> Vec<String> {
        let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        let Some(entries) = user_dir.and_then(|dir| std::fs::read_dir(dir).ok()) else { return names };
        let mut own: Vec<String> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_toml = path.extension().is_some_and(|ext| ext == "toml");
                let stem = path.file_stem()?.to_str()?;
                (is_toml && file::is_name(stem)).then(|| stem.to_owned())
            })
            .filter(|name| !names.contains(name))
            .collect();
        own.sort();
        names.append(&mut own);
        names
    }

    /// The same theme without any colour, for `NO_COLOR`: bold, faint, underline and reverse stay.
    #[must_use]
    pub fn without_colour(mut self) -> Self {
        for style in &mut self.styles {
            *style = Style { fg: None, bg: None, underline_color: None, ..*style };
        }
        // What only colour told apart gets a modifier.
        for (role, modifier) in [
            (Role::Heading, Modifier::BOLD),
            (Role::Accent, Modifier::BOLD),
            (Role::Bad, Modifier::BOLD),
            (Role::Link, Modifier::UNDERLINED),
            (Role::Selection, Modifier::REVERSED),
        ] {
            let style = self.style(role).add_modifier(modifier);
            self.set(role, style);
        }
        self
    }

    /// The style of a role.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    fn set(&mut self, role: Role, style: Style) {
        if let Some(slot) = self.styles.get_mut(role as usize) {
            *slot = style;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use ratatui::style::Color;

    #[test]
    fn every_theme_in_the_folder_is_built_in_and_loads_without_a_warning() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("themes");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("themes/")
            .map(|e| e.expect("entry").path().file_stem().expect("stem").to_string_lossy().into_owned())
            .collect();
        files.sort();
        let mut names = Theme::names(None);
        names.sort();
        assert_eq!(names, files);
        for name in names {
            let (theme, warnings) = Theme::load(&name, None).expect("loads");
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
            assert_eq!(theme.name, name);
        }
    }

    #[test]
    fn roles_are_in_the_order_of_the_table() {
        for (at, (role, _)) in Role::ALL.iter().enumerate() {
            assert_eq!(*role as usize, at);
        }
    }

    #[test]
    fn the_default_uses_the_terminals_own_colours() {
        let (theme, _) = Theme::load("default", None).expect("loads");
        for (role, name) in Role::ALL {
            let style = theme.style(role);
            for colour in [style.fg, style.bg].into_iter().flatten() {
                assert!(!matches!(colour, Color::Rgb(..) | Color::Indexed(_)), "{name}: {colour}");
            }
            assert_eq!(style.bg, None, "{name}");
        }
    }

    #[test]
    fn unknown_theme_names_those_there_are() {
        let error = Theme::load("solar", None).expect_err("unknown");
        assert_eq!(error, "no theme `solar`; there is default, light, high-contrast");
        assert!(Theme::load("../default", None).is_err());
    }

    #[test]
    fn a_users_file_overrides_and_inherits() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(
            dir.path().join("mine.toml"),
            "inherits = \"light\"\naccent = { fg = \"sky\", modifiers = [\"bold\"] }\n[palette]\nsky = \"#58f\"\n",
        )
        .expect("written");
        let (mine, warnings) = Theme::load("mine", Some(dir.path())).expect("loads");
        let (light, _) = Theme::load("light", None).expect("loads");
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            mine.style(Role::Accent),
            Style::new().fg(Color::Rgb(0x55, 0x88, 0xff)).add_modifier(Modifier::BOLD)
        );
        assert_eq!(mine.style(Role::Keyword), light.style(Role::Keyword));
        assert_eq!(Theme::names(Some(dir.path())).last().map(String::as_str), Some("mine"));
    }

    #[test]
    fn problems_are_warnings_with_the_nearest_name() {
        let dir = tempfile::tempdir().expect("dir");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write(
            "bad.toml",
            "acent = \"red\"\nlink = \"bleu\"\ncode = { fg = 3 }\nuser = { modifiers = [\"fat\"] }\n",
        );
        write("a.toml", "inherits = \"b\"\n");
        write("b.toml", "inherits = \"a\"\n");
        write("broken.toml", "text = \n");
        let warnings = |name: &str| Theme::load(name, Some(dir.path())).expect("loads").1;
        assert_eq!(
            warnings("bad"),
            [
                "theme bad, line 1: unknown role `acent`; did you mean `accent`?",
                "theme bad, line 2: unknown colour `bleu`; did you mean `blue`?",
                "theme bad, line 3: `code.fg` is a colour in quotes",
                "theme bad, line 4: unknown modifier `fat`; there is bold, dim, italic, underlined, reversed, crossed-out",
            ]
        );
        assert_eq!(warnings("a"), ["theme a: it inherits from itself by way of `b`"]);
        assert_eq!(warnings("broken").len(), 1);
        assert!(warnings("broken")[0].starts_with("theme broken, line 1: "), "{:?}", warnings("broken"));
    }

    #[test]
    fn the_locale_says_which_characters_there_are() {
        let cases = [
            (["", "", ""], Charset::Unicode),
            (["", "", "de_DE.UTF-8"], Charset::Unicode),
            (["", "C.utf8", "C"], Charset::Unicode),
            (["C", "", "de_DE.UTF-8"], Charset::Ascii),
            (["", "", "de_DE.ISO-8859-1"], Charset::Ascii),
            (["", "POSIX", ""], Charset::Ascii),
        ];
        for (locales, charset) in cases {
            assert_eq!(Charset::of(locales.into_iter()), charset, "{locales:?}");
        }
    }

    #[test]
    fn without_colour_keeps_modifiers() {
        let theme = Theme::load("default", None).expect("loads").0.without_colour();
        for (role, name) in Role::ALL {
            let style = theme.style(role);
            assert_eq!((style.fg, style.bg, style.underline_color), (None, None, None), "{name}");
        }
        assert!(theme.style(Role::Selection).add_modifier.contains(Modifier::REVERSED));
        assert!(theme.style(Role::Heading).add_modifier.contains(Modifier::BOLD));
    }
}
