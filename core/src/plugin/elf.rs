//! What an ELF file is, read before the dynamic loader runs any of its code. The loader's own messages are hard to act on.

use std::path::Path;

/// What keeps a file from being loaded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FileFault {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A text, a script, an archive.
    #[error("not a library (no ELF header)")]
    NotLibrary,
    /// An executable or an object file.
    #[error("an ELF file, but not a shared library: build it as a cdylib")]
    NotShared,
    /// It cannot be read to its end.
    #[error("truncated or damaged ({0}): copy it again")]
    Damaged(String),
    /// For another processor.
    #[error("built for {found}, this host is {host}")]
    Machine {
        /// The file's.
        found: String,
        /// This process's.
        host: String,
    },
    /// No entry symbol at all.
    #[error("it does not export {expected}: this is not a Tailwater plugin")]
    NoEntry {
        /// The symbol of this host.
        expected: &'static str,
    },
    /// An entry symbol of another major.
    #[error("it speaks {found}, this host {expected}: build it against a matching tailwater-sdk")]
    OtherMajor {
        /// What it exports.
        found: String,
        /// The symbol of this host.
        expected: &'static str,
    },
    /// Built on a newer system.
    #[error("it needs glibc {needs}, this host has {has}: build it on an older system")]
    Glibc {
        /// Highest version among its symbols.
        needs: String,
        /// What is running here.
        has: String,
    },
}

/// Checks the file before it is opened as a library. Where libraries are not ELF this finds nothing: the loader then speaks.
#[cfg(not(target_os = "linux"))]
pub(crate) fn check(_path: &Path) -> std::io::Result<Result<(), FileFault>> {
    Ok(Ok(()))
}

/// Checks the file before it is opened as a library.
///
/// # Errors
/// The outer error is that of reading the file.
#[cfg(target_os = "linux")]
pub(crate) fn check(path: &Path) -> std::io::Result<Result<(), FileFault>> {
    linux::check(path)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom};
    use std::path::Path;

    use object::Endianness;
    use object::elf::{ET_DYN, FileHeader32, FileHeader64};
    use object::read::elf::{ElfFile, FileHeader};
    use object::{Object, ObjectSymbol, ReadCache, ReadRef};
    use tailwater_abi::TW_ENTRY_SYMBOL;

    use super::FileFault;

    pub(super) fn check(path: &Path) -> std::io::Result<Result<(), FileFault>> {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(20).read_to_end(&mut head)?;
        file.seek(SeekFrom::Start(0))?;
        if let Err(fault) = check_head(&head) {
            return Ok(Err(fault));
        }
        let cache = ReadCache::new(file);
        // `check_head` has seen that class and byte order are this host's own.
        Ok(if cfg!(target_pointer_width = "64") {
            check_symbols::<FileHeader64<Endianness>, _>(&cache)
        } else {
            check_symbols::<FileHeader32<Endianness>, _>(&cache)
        })
    }

    /// The first 20 bytes: magic, class, byte order, file type and machine. They stand in the same place in every ELF file.
    fn check_head(head: &[u8]) -> Result<(), FileFault> {
        if head.is_empty() {
            return Err(FileFault::Empty);
        }
        if !head.starts_with(b"\x7fELF") {
            return Err(FileFault::NotLibrary);
        }
        if head.len() < 20 {
            return Err(FileFault::Damaged(format!("only {} bytes", head.len())));
        }
        let little = head[5] == 1;
        let half = |at: usize| {
            let bytes = [head[at], head[at + 1]];
            if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
        };
        let found = describe(half(18), if head[4] == 2 { 64 } else { 32 }, little);
        let host = describe(HOST_MACHINE, usize::BITS, cfg!(target_endian = "little"));
        if found != host {
            return Err(FileFault::Machine { found, host });
        }
        if half(16) != ET_DYN.0 {
            return Err(FileFault::NotShared);
        }
        Ok(())
    }

    /// `e_machine` of this process.
    const HOST_MACHINE: u16 = if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "riscv64") {
        243
    } else if cfg!(target_arch = "s390x") {
        22
    } else if cfg!(target_arch = "powerpc64") {
        21
    } else if cfg!(target_arch = "arm") {
        40
    } else {
        3
    };

    /// A machine as people call it. Class and byte order are said only where the name leaves them open.
    fn describe(machine: u16, bits: u32, little: bool) -> String {
        let (name, usual_bits, usually_little) = match machine {
            3 => ("x86", 32, true),
            21 => ("powerpc64", 64, true),
            22 => ("s390x", 64, false),
            40 => ("arm", 32, true),
            62 => ("x86_64", 64, true),
            183 => ("aarch64", 64, true),
            243 => ("riscv", 64, true),
            other => return format!("machine {other} ({bits}-bit)"),
        };
        let mut text = name.to_owned();
        if bits != usual_bits {
            text.push_str(&format!(" ({bits}-bit)"));
        }
        if little != usually_little {
            text.push_str(if little { " (little-endian)" } else { " (big-endian)" });
        }
        text
    }

    fn check_symbols<'data, Elf, R>(data: R) -> Result<(), FileFault>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        let damaged = |error: object::Error| FileFault::Damaged(error.to_string());
        let file = ElfFile::<'data, Elf, R>::parse(data).map_err(damaged)?;
        let mut other = None;
        let mut found = false;
        for symbol in file.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
            match symbol.name() {
                Ok(name) if name == TW_ENTRY_SYMBOL => found = true,
                Ok(name) if name.starts_with("tailwater_plugin_") => other = Some(name.to_owned()),
                _ => {}
            }
        }
        if !found {
            return Err(match other {
                Some(found) => FileFault::OtherMajor { found, expected: TW_ENTRY_SYMBOL },
                None => FileFault::NoEntry { expected: TW_ENTRY_SYMBOL },
            });
        }
        match (glibc_needed(&file).map_err(damaged)?, glibc_here()) {
            (Some(needs), Some(has)) if needs > has => Err(FileFault::Glibc { needs: dotted(needs), has: dotted(has) }),
            _ => Ok(()),
        }
    }

    /// The highest `GLIBC_x.y` among the versions the file's symbols need.
    fn glibc_needed<'data, Elf, R>(file: &ElfFile<'data, Elf, R>) -> Result<Option<(u32, u32)>, object::Error>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        let (endian, data, sections) = (file.endian(), file.data(), file.elf_section_table());
        let Some((mut needs, strings)) = sections.gnu_verneed(endian, data)? else { return Ok(None) };
        let strings = sections.strings(endian, data, strings)?;
        let mut highest = None;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                highest = highest.max(parse_glibc(version.name(endian, strings)?));
            }
        }
        Ok(highest)
    }

    fn parse_glibc(version: &[u8]) -> Option<(u32, u32)> {
        parse_version(std::str::from_utf8(version).ok()?.strip_prefix("GLIBC_")?)
    }

    fn parse_version(text: &str) -> Option<(u32, u32)> {
        let mut parts = text.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn dotted((major, minor): (u32, u32)) -> String {
        format!("{major}.{minor}")
    }

    #[cfg(target_env = "gnu")]
    fn glibc_here() -> Option<(u32, u32)> {
        // SAFETY: returns a static, NUL-terminated text.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        parse_version(version.to_str().ok()?)
    }

    #[cfg(not(target_env = "gnu"))]
    fn glibc_here() -> Option<(u32, u32)> {
        None
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn versions_compare_as_numbers() {
            assert!(parse_glibc(b"GLIBC_2.4") < parse_glibc(b"GLIBC_2.34"));
            assert_eq!(parse_glibc(b"GLIBC_2.3.4"), Some((2, 3)));
            assert_eq!(parse_glibc(b"GLIBC_PRIVATE"), None);
            assert_eq!(parse_glibc(b"GLIBC_ABI_DT_RELR"), None);
        }
    }
}
