//! What a channel and an event may be called, and how large an event may be: Pusher's limits, checked before anything is sent.
//! Pure.

/// Most entries in one `batch_events` on Pusher's shared clusters.
pub(crate) const BATCH_ENTRIES_MAX: usize = 10;

/// Most channels of one event.
pub(crate) const CHANNELS_MAX: usize = 100;

/// Most bytes of one event's `data`.
pub(crate) const DATA_BYTES_MAX: usize = 10 * 1024;

/// Most characters of a channel's name, its prefix included.
const CHANNEL_LENGTH_MAX: usize = 164;

/// Most characters of an event's name.
const EVENT_LENGTH_MAX: usize = 200;

/// Before the id of a user: the only channels whose names may hold a `#`.
const USER_PREFIX: &str = "#server-to-user-";

/// Why a name or a size is refused. No second try can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the {what} name is empty")]
    Empty { what: &'static str },
    #[error("the {what} name has {length} characters, Pusher takes at most {max}")]
    Long { what: &'static str, length: usize, max: usize },
    #[error("the channel name {name:?} has the character {character:?}, Pusher takes letters, digits and _-=@,.;")]
    Character { name: String, character: char },
    #[error("the channel {name:?} is an encrypted one, which this version cannot write: use a private- channel")]
    Encrypted { name: String },
    #[error("the event name {name:?} begins with {prefix:?}, which Pusher keeps for itself")]
    Reserved { name: String, prefix: &'static str },
    #[error("the data has {bytes} bytes, Pusher takes at most {DATA_BYTES_MAX}")]
    Large { bytes: usize },
}

/// Checks the name of a channel.
pub(crate) fn check_channel(name: &str) -> Result<(), LimitError> {
    check_length("channel", name, CHANNEL_LENGTH_MAX)?;
    let open = name.strip_prefix(USER_PREFIX).filter(|user| !user.is_empty()).unwrap_or(name);
    let legal = |character: char| character.is_ascii_alphanumeric() || "_-=@,.;".contains(character);
    if let Some(character) = open.chars().find(|character| !legal(*character)) {
        return Err(LimitError::Character { name: name.to_owned(), character });
    }
    if name.starts_with("private-encrypted-") {
        return Err(LimitError::Encrypted { name: name.to_owned() });
    }
    Ok(())
}

/// Checks the name of an event.
pub(crate) fn check_event(name: &str) -> Result<(), LimitError> {
    check_length("event", name, EVENT_LENGTH_MAX)?;
    match ["pusher:", "pusher_internal:"].into_iter().find(|prefix| name.starts_with(prefix)) {
        Some(prefix) => Err(LimitError::Reserved { name: name.to_owned(), prefix }),
        None => Ok(()),
    }
}

/// Checks the size of an event's data.
pub(crate) fn check_data(data: &str) -> Result<(), LimitError> {
    match data.len() {
        ..=DATA_BYTES_MAX => Ok(()),
        bytes => Err(LimitError::Large { bytes }),
    }
}

fn check_length(what: &'static str, name: &str, max: usize) -> Result<(), LimitError> {
    match name.chars().count() {
        0 => Err(LimitError::Empty { what }),
        length if length > max => Err(LimitError::Long { what, length, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_taken_and_refused_by_pushers_rules() {
        let longest = "c".repeat(164);
        for name in [
            "a",
            "shop.orders",
            "private-orders-64b0c1",
            "presence-room_1",
            "private-cache-last",
            "cache-last",
            "A-Z_a=z@0,9.;",
            "#server-to-user-42",
            "private-encryptedly",
            &longest,
        ] {
            assert_eq!(check_channel(name), Ok(()), "{name}");
        }
        for (name, expected) in [
            ("", "is empty"),
            (&format!("{longest}c")[..], "has 165 characters, Pusher takes at most 164"),
            ("shop:orders", "character ':'"),
            ("a/b", "character '/'"),
            ("a b", "character ' '"),
            ("a\n", "character '\\n'"),
            ("kölsch", "character 'ö'"),
            ("#orders", "character '#'"),
            ("#server-to-user-", "character '#'"),
            ("#server-to-user-a#", "character '#'"),
            ("$all", "character '$'"),
            ("private-encrypted-orders", "encrypted"),
            ("private-encrypted-cache-orders", "encrypted"),
        ] {
            let error = check_channel(name).expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn events_are_taken_and_refused_by_pushers_rules() {
        let longest = "ü".repeat(200);
        for name in ["insert", "client-typing", "orders: new!", "pusher", &longest] {
            assert_eq!(check_event(name), Ok(()), "{name}");
        }
        for (name, expected) in [
            ("", "is empty"),
            (&format!("{longest}e")[..], "has 201 characters, Pusher takes at most 200"),
            ("pusher:ping", "begins with \"pusher:\""),
            ("pusher_internal:x", "begins with \"pusher_internal:\""),
        ] {
            let error = check_event(name).expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn data_is_measured_in_bytes_and_to_the_byte() {
        for (data, expected) in [
            ("d".repeat(10_240), None),
            ("d".repeat(10_241), Some(10_241)),
            ("ü".repeat(5_120), None),
            (format!("{}d", "ü".repeat(5_120)), Some(10_241)),
        ] {
            let bytes = check_data(&data).err().map(|error| match error {
                LimitError::Large { bytes } => bytes,
                other => panic!("{other}"),
            });
            assert_eq!(bytes, expected);
        }
        let text = LimitError::Large { bytes: 10_241 }.to_string();
        assert_eq!(text, "the data has 10241 bytes, Pusher takes at most 10240");
    }
}
