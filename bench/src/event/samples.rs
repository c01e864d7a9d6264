//! The two events that are measured: an insert of about 500 bytes and one of about 20 KB, as mongod sends them.
//!
//! Both are orders, with the same fields at the top where queries and templates look; the large one has 48 lines before
//! `status`, with texts that need escaping and texts outside ASCII.

use bson::{Bson, DateTime, Decimal128, Document, RawDocumentBuf, doc, oid::ObjectId};

/// An order with two lines.
pub fn small() -> RawDocumentBuf {
    let lines = [doc! { "sku": "A-1001", "count": 2 }, doc! { "sku": "B-2002", "count": 1 }];
    event(doc! {
        "_id": order_id(),
        "userId": "u-48210",
        "customer": "Ada Lovelace",
        "status": "open",
        "number": 10_042,
        "total": 129.95,
        "created": date(0),
        "lines": lines.to_vec(),
    })
}

/// An order with many lines, notes and a history.
pub fn large() -> RawDocumentBuf {
    let lines: Vec<Bson> = (0..48).map(|number| line(number).into()).collect();
    let history: Vec<Bson> = (0..24)
        .map(|number| {
            let by = ObjectId::from_bytes([number as u8 + 7; 12]);
            doc! { "at": date(number * 60_000 + 7), "by": by, "what": "repriced", "was": 100.25 + number as f64 }.into()
        })
        .collect();
    event(doc! {
        "_id": order_id(),
        "userId": "u-48210",
        "customer": "Ada Lovelace",
        "number": 10_042,
        "created": date(0),
        "lines": lines,
        "shipping": {
            "name": "Åsa Lövgren", "street": "Kungsgatan 12", "city": "Göteborg", "country": "SE",
            "location": { "type": "Point", "coordinates": [11.966_795_2, 57.707_233_1] },
        },
        "notes": NOTE.repeat(8),
        "history": history,
        "status": "open",
        "total": 129.95,
        "paid": Decimal128::from_bytes(CENTS_12995),
        "session": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: (0..16).collect() },
        "coupon": Bson::Null,
        "views": 5_000_000_000_i64,
    })
}

const NOTE: &str =
    "Customer says: \"leave it at the neighbour's\".\r\nGate code 4711\tC:\\gates\\north — bitte nicht läuten ☂. ";

/// 129.95 as a Decimal128: the coefficient 12995, the exponent −2.
const CENTS_12995: [u8; 16] = [0xc3, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3c, 0x30];

fn line(number: i64) -> Document {
    let tags = if number % 3 == 0 { vec!["outdoor", "sale"] } else { vec!["grün"] };
    doc! {
        "sku": if number == 47 { "B-2002".to_owned() } else { format!("C-{:04}", 3000 + number) },
        "product": ObjectId::from_bytes([number as u8; 12]),
        "title": format!("Regenjacke „Über\" No. {number}"),
        "description": "Waterproof to 10,000 mm; machine wash at 30 °C.\nDo not iron. Size runs small, see the table of sizes.",
        "count": (number % 4 + 1) as i32,
        "price": Decimal128::from_bytes(CENTS_12995),
        "weight": 0.375 * number as f64,
        "added": date(number * 1_000 + 123),
        "tags": tags,
        "options": { "colour": "blå", "gift": number % 2 == 0, "engraving": Bson::Null },
    }
}

fn order_id() -> ObjectId {
    ObjectId::from_bytes([0x65, 0xe0, 0xd0, 0xc0, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0, 0x11])
}

fn date(later_ms: i64) -> DateTime {
    DateTime::from_millis(1_795_312_923_000 + later_ms)
}

fn event(order: Document) -> RawDocumentBuf {
    let token = "826B024D1B000000042B022C0100296E5A1004A2C3B4D4F87B4C009033EFFD5EB1E70646645F69640064\
                 65E0D0C0AABBCCDDEEFF00110004";
    let event = doc! {
        "_id": { "_data": token },
        "operationType": "insert",
        "clusterTime": bson::Timestamp { time: 0x6b02_4d1b, increment: 4 },
        "wallTime": date(123),
        "fullDocument": order,
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": order_id() },
    };
    RawDocumentBuf::try_from(&event).expect("can be encoded")
}
