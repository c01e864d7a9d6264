#!/usr/bin/env python3
"""Asks a real mongod which documents match which queries, and writes its answers as tests/oracle/answers.bson.

    pip install pymongo
    mongod --dbpath D --port 27017 --bind_ip 127.0.0.1
    python3 matcher/tests/oracle/ask.py mongodb://127.0.0.1:27017 [seed]

The file is a sequence of BSON documents: first {server, seed, documents}, then one {query, matched} per query, where
`matched` holds the `_id`s of the matching documents; a query that the server refuses has {query, refused: code}.
Documents and queries are generated from the seed, beside tables of nasty ones; the same seed makes the same questions.
"""
import datetime
import os
import random
import sys

import bson
import bson.raw_bson
import pymongo
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.son import SON

DATE = datetime.datetime(2024, 2, 29, 12, 0, 0)
VALUES = [
    None, 0, 1, 2, -1, Int64(1), Int64(2**53 + 1), Int64(2**63 - 1), Int64(-2**63), 1.0, 1.5, -0.0, 0.1, 2.0**53, 2.0**63, 1e300, float("nan"),
    float("inf"), float("-inf"), Decimal128("1"), Decimal128("1.50"), Decimal128("0.1"), Decimal128("-0"),
    Decimal128("0.1000000000000000055511151231257827"), Decimal128("0E+3"), Decimal128("1E+3"), 1000, Decimal128("NaN"),
    Decimal128("Infinity"), Decimal128("9007199254740993"), Decimal128("1E+300"), Decimal128("9223372036854775808"),
    2.0**100, Decimal128("1267650600228229401496703205376"), 2.0**120, Decimal128("1.329227995784915872903807060280345E+36"),
    0.5**20, Decimal128("9.5367431640625E-7"), -1.5, Decimal128("-1.5"), Decimal128("1E-6176"), 1e-320,
    Decimal128("9007199254740992.5"), 5e22, Decimal128("5E+22"), 1e23, Decimal128("1E+23"),
    True, False, "", "a", "A", "ab", "a\0b", "1", "é", DATE, Timestamp(1709208000, 0), Timestamp(1, 2), ObjectId("65e0d0c0aabbccddeeff0011"),
    Binary(b"abc", 0), Binary(b"abc", 128), Binary(b"", 0), MinKey(), MaxKey(), bson.Code("f"), bson.Code("f", {}),
    SON(), SON([("b", 1)]), SON([("b", 1.0)]), SON([("b", 1), ("c", 2)]), SON([("c", 2), ("b", 1)]), SON([("b", None)]),
    SON([("0", 1)]), SON([("0", SON([("b", 1)]))]), SON([("b", [1, 2])]), SON([("b", SON([("c", 1)]))]), SON([("x$y", 1)]),
    [], [None], [1], [1.0], [1, 2], [2, 1], [[1]], [[1], 2], [[]], [[[1]]], ["a", None], [SON()], [SON([("b", 1)])],
    [SON([("b", 1)]), SON([("c", 1)])], [SON([("c", 1)])], [SON([("b", [1, 2])])], [SON([("b", None)])], [[SON([("b", 1)])]],
    [SON([("0", 1)])], [SON([("0", SON([("b", 1)]))])], [1, SON([("1", 4)])], [5, [2, 4]], [SON([("b", []) ])],
    [SON([("b", SON([("c", 1)]))]), SON([("b", 2)])], [Decimal128("1"), True], [[1, 2], [3]], [SON([("x$y", 1)])],
]
PATHS = ["a", "a", "a", "b", "a.b", "a.b", "a.0", "a.1", "a.0.b", "a.b.c", "a.0.0", "a.b.0", "a.b.1", "a.00", "a.x$y", "a.1.1", "a.0.b.0", "x", "a.c", "0", "a.b.c.d"]


def make_document(rng, depth=0):
    doc = SON()
    for name in ("a", "b", "0", "c"):
        if rng.random() < (0.85 if name == "a" else 0.3):
            doc[name] = make_value(rng, depth)
    return doc


def make_value(rng, depth):
    kind = rng.random()
    if depth < 3 and kind < 0.2:
        return [make_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 3 and kind < 0.4:
        return make_document(rng, depth + 1)
    return rng.choice(VALUES)


def make_condition(rng):
    kind = rng.randrange(8)
    if kind <= 1:
        return rng.choice(VALUES)
    if kind == 2:
        return {"$eq": rng.choice(VALUES)}
    if kind == 3:
        return {"$ne": rng.choice(VALUES)}
    if kind in (4, 5):
        values = [rng.choice(VALUES) for _ in range(rng.randrange(5))]
        return {"$in" if kind == 4 else "$nin": values}
    if kind == 6:
        return {"$exists": rng.choice([True, False, 1, 0, None, 0.0, "", Decimal128("0"), Decimal128("0E+3"), []])}
    return SON([("$ne", rng.choice(VALUES)), ("$exists", rng.choice([True, False]))])


def make_query(rng, depth=0):
    query = SON()
    for _ in range(rng.choice([1, 1, 1, 2])):
        if depth < 3 and rng.random() < 0.2:
            query[rng.choice(["$and", "$or"])] = [make_query(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
        else:
            query[rng.choice(PATHS)] = make_condition(rng)
    return query


NASTY = [
    {}, {"$and": []}, {"$or": []}, {"$and": [{}]}, {"$or": [{}]}, {"$or": [{"a": 1}]}, {"$and": {"a": 1}}, {"$or": [1]},
    {"a": {"$in": 1}}, {"a": {"$nin": None}}, {"a": {"$in": [{"$eq": 1}]}}, {"a": {"$eq": 1, "b": 2}}, {"a": {"b": 1, "$eq": 2}},
    {"a": {"$wrong": 1}}, {"$wrong": 1}, {"a": {"$ne": None}}, {"a": {"$nin": [None]}}, {"a": {"$in": []}}, {"a": {"$nin": []}},
    {"a.b": None}, {"a.b": {"$ne": None}}, {"a.b": {"$exists": False}}, {"a.b": {"$exists": True}}, {"a.0": {"$exists": True}},
    {"a.0.b": None}, {"a.b": {"$in": [None, 1]}}, {"a.b": {"$nin": [None, 1]}}, {"a": {"$eq": {"$in": [1]}}},
    {"a": {"$ref": "x", "$id": 1}}, {"a": {"$id": 1}}, {"a": {"$ref": "x"}}, {"a.": 1}, {"a..b": None}, {"": 1}, {"": None}, {"a": {"$and": [{"b": 1}]}},
    {"a": {"$eq": {}}}, {"a": {}}, {"$and": [{"a": 1}, {"$or": [{"b": 1}, {"a.b": 1}]}]}, {"a": {"$eq": Regex("x")}}, {"a": {"$ne": Regex("x")}},
    {"a": {"$in": [{"$ref": "x", "$id": 1}]}}, {"a": {"$in": [[1, 2], [1]]}}, {"a": {"$in": [[]]}}, {"a": {"$exists": {}}},
]


def main():
    uri = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20240229
    rng = random.Random(seed)
    client = pymongo.MongoClient(uri, directConnection=True)
    coll = client["oracle"]["questions"]
    coll.drop()
    documents = [SON([("a", value)]) for value in VALUES] + [SON(), SON([("b", 1)])]
    documents += [SON([("a", SON([("b", v)]))]) for v in VALUES[::4]] + [SON([("a", [SON([("b", v)]), 1])]) for v in VALUES[1::4]]
    documents += [make_document(rng) for _ in range(150)]
    coll.insert_many([SON([("_id", at), *d.items()]) for at, d in enumerate(documents)])
    # What the server stored is what the matcher gets: an empty timestamp, say, is filled in by the server.
    raw = client.get_database("oracle", codec_options=bson.CodecOptions(document_class=bson.raw_bson.RawBSONDocument)).questions
    stored = list(raw.find({}, sort=[("_id", 1)]))
    queries = NASTY + [SON([(p, v)]) for v in VALUES for p in ("a", "a.b")] + [{"a": {"$in": [v]}} for v in VALUES]
    queries += [make_query(rng) for _ in range(250)]
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "answers.bson")
    triples = 0
    with open(out, "wb") as file:
        file.write(bson.encode({"server": client.server_info()["version"], "seed": seed, "documents": stored}))
        for query in queries:
            try:
                matched = {d["_id"] for d in coll.find(query, {"_id": 1})}
            except pymongo.errors.OperationFailure as error:
                file.write(bson.encode({"query": query, "refused": error.code}))
                continue
            file.write(bson.encode({"query": query, "matched": sorted(matched)}))
            triples += len(documents)
    print(f"{len(queries)} queries, {triples} answers, {os.path.getsize(out)} bytes")


if __name__ == "__main__":
    main()
