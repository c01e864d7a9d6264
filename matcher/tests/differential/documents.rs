//! Documents as they lie in a collection: also what the driver's documents cannot hold.

use bson::{Bson, Document, RawBson, RawDocumentBuf};

use super::random::Random;
use super::values::World;

/// A document with this `_id`.
pub fn document(random: &mut Random, world: &World, id: usize) -> RawDocumentBuf {
    let mut document = Document::new();
    document.insert("_id", id as i32);
    for name in ["a", "b", "c", "0", ""] {
        let percent = if name == "a" { 85 } else { 25 };
        if random.percent(percent) {
            document.insert(name, value(random, world));
        }
    }
    let mut raw = RawDocumentBuf::try_from(&document).expect("can be encoded");
    // A name that comes twice: the first one counts.
    if random.percent(3) {
        raw.append(bson::cstr!("a"), RawBson::try_from(world.value(random, 1)).expect("can be encoded"));
    }
    raw
}

/// Values with more arrays and documents, and these more alike, than chance would make.
fn value(random: &mut Random, world: &World) -> Bson {
    match random.below(8) {
        // Arrays of documents of one kind, as orders have lines.
        0 => {
            let len = random.below(4);
            let mut line = || {
                let mut line = Document::new();
                for name in ["a", "b"] {
                    if random.percent(80) {
                        line.insert(name, world.value(random, 1));
                    }
                }
                Bson::Document(line)
            };
            Bson::Array((0..len).map(|_| line()).collect())
        }
        1 => {
            let len = random.below(5);
            Bson::Array((0..len).map(|_| world.scalar(random)).collect())
        }
        2 => {
            let mut inner = Document::new();
            for name in ["a", "b"] {
                inner.insert(name, world.value(random, 2));
            }
            Bson::Document(inner)
        }
        _ => world.value(random, 3),
    }
}
