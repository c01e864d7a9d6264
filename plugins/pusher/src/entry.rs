//! What is sent of one change event: its channels, name and data. Owns the templates that give them.

use tailwater_sdk::{
    Event, Verdict,
    template::{Escape, Scope, Template, TemplateError},
};

use crate::{
    config::Options,
    names::{self, LimitError},
};

/// One event, rendered and within Pusher's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Its place in the batch.
    pub index: usize,
    /// What it shares with the other events of its document; 0 where it has none.
    pub key: u64,
    /// At least one, none twice.
    pub channels: Vec<String>,
    pub name: String,
    /// The event's JSON, its id included.
    pub data: &'a str,
}

/// The templates of one output.
pub(crate) struct Templates {
    channels: Vec<Template>,
    event: Template,
}

/// Why the templates of an output cannot work for any event. Begins with the option's key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplatesError {
    #[error("{0}: {1}")]
    Template(&'static str, TemplateError),
    #[error("{0}: {1}")]
    Limit(&'static str, LimitError),
}

impl Templates {
    /// Compiles all of them, and checks the names that are the same for every event.
    pub(crate) fn compile(options: &Options) -> Result<Self, TemplatesError> {
        let compile = |key, source: &str| {
            Template::compile(source, Escape::None).map_err(|error| TemplatesError::Template(key, error))
        };
        let channels = options.channels.iter().map(|source| compile("channels", source));
        let channels: Vec<_> = channels.collect::<Result<_, _>>()?;
        for channel in channels.iter().filter_map(Template::constant) {
            names::check_channel(channel).map_err(|error| TemplatesError::Limit("channels", error))?;
        }
        let event = compile("event", &options.event)?;
        if let Some(name) = event.constant() {
            names::check_event(name).map_err(|error| TemplatesError::Limit("event", error))?;
        }
        Ok(Self { channels, event })
    }

    /// Renders the event at `index` of its batch.
    pub(crate) fn entry<'a>(&self, index: usize, event: Event<'a>) -> Result<Entry<'a>, Verdict> {
        let scope = Scope::of(event);
        let name = self.event.render(&scope)?;
        names::check_event(&name).map_err(Verdict::reject)?;
        let mut channels = Vec::with_capacity(self.channels.len());
        for template in &self.channels {
            let channel = template.render(&scope)?;
            names::check_channel(&channel).map_err(Verdict::reject)?;
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        let data = std::str::from_utf8(event.json()?).map_err(Verdict::reject)?;
        names::check_data(data).map_err(Verdict::reject)?;
        Ok(Entry { index, key: event.key(), channels, name, data })
    }
}
