//! Themes: a role of the interface to a style. The only module that may name RGB colours.

/// A style for every role.
#[derive(Clone, Debug, PartialEq)]
pub struct Theme {
    /// Its name.
    pub name: String,
}

impl Theme {
    /// Loads a theme by name from the user's folder, else from those in the binary. Problems inside the
    /// file are warnings (one line each); the entry keeps its default.
    ///
    /// # Errors
    /// One line naming the themes there are, when there is none of this name.
    pub fn load(name: &str, _user_dir: Option<&std::path::Path>) -> Result<(Self, Vec<String>), String> {
        Ok((Self { name: name.to_owned() }, Vec::new()))
    }

    /// Names of all themes.
    #[must_use]
    pub fn names(_user_dir: Option<&std::path::Path>) -> Vec<String> {
        Vec::new()
    }
}
