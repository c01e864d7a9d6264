//! An output proved as far as it can be without a server: its plugin loaded, its options accepted, its `match` compiled.

use std::path::Path;

use tailwater_match::{MatchError, Matcher};

use crate::config::Config;
use crate::lane;
use crate::plugin::{Library, LoadError, OptionsError, default_dir};

/// One enabled output, ready to be started.
pub struct PreparedOutput {
    /// `[outputs.NAME]`.
    pub config: lane::config::Config,
    /// Its plugin.
    pub library: Library,
    /// Its `match`.
    pub matcher: Option<Matcher>,
}

/// Why an output cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder of plugins cannot be known.
    #[error("find the plugin folder: {0}; set plugins.dir")]
    Folder(std::io::Error),
    /// Its plugin does not load.
    #[error("outputs.{output}.plugin: {error}")]
    Load {
        /// The output.
        output: String,
        /// Why.
        error: LoadError,
    },
    /// Its options are refused.
    #[error("outputs.{output}.{error}")]
    Options {
        /// The output.
        output: String,
        /// Why; begins with the key.
        error: OptionsError,
    },
    /// Its `match` is not a query.
    #[error("outputs.{output}.match: {error}")]
    Match {
        /// The output.
        output: String,
        /// Why.
        error: MatchError,
    },
}

/// Prepares every output, disabled ones too, and gives back the enabled ones.
///
/// # Errors
/// All that is wrong, not only the first.
pub fn prepare(config: &Config) -> Result<Vec<PreparedOutput>, Vec<OutputError>> {
    let folder = match &config.plugins.dir {
        Some(folder) => folder.clone(),
        None => default_dir().map_err(|e| vec![OutputError::Folder(e)])?,
    };
    let mut prepared = Vec::new();
    let mut problems = Vec::new();
    for output in &config.outputs {
        let (library, matcher) = (load(output, &folder), compile(output));
        match (library, matcher) {
            (Ok(library), Ok(matcher)) if output.enabled => {
                prepared.push(PreparedOutput { config: output.clone(), library, matcher });
            }
            (library, matcher) => problems.extend(library.err().into_iter().chain(matcher.err())),
        }
    }
    if problems.is_empty() { Ok(prepared) } else { Err(problems) }
}

fn load(output: &lane::config::Config, folder: &Path) -> Result<Library, OutputError> {
    let name = || output.name.clone();
    let library = Library::load(folder, &output.plugin).map_err(|error| OutputError::Load { output: name(), error })?;
    library.check_options(&output.options).map_err(|error| OutputError::Options { output: name(), error })?;
    Ok(library)
}

fn compile(output: &lane::config::Config) -> Result<Option<Matcher>, OutputError> {
    let compiled = output.query.as_ref().map(Matcher::compile).transpose();
    compiled.map_err(|error| OutputError::Match { output: output.name.clone(), error })
}
