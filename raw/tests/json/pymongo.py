"""Reads lines of BSON as hex, canonical JSON and relaxed JSON, set apart by tabs. Answers each with a line of JSON: what json_util
makes of the BSON in both forms, and the BSON as hex that it reads from either JSON; or what it says instead."""

import json
import sys

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, dumps, loads
from bson.son import SON

# Dates beyond Python's years stay numbers; documents keep their order.
FAITHFUL = {"document_class": SON, "datetime_conversion": DatetimeConversion.DATETIME_MS}
CODEC = CodecOptions(**FAITHFUL)
FORMS = [CANONICAL_JSON_OPTIONS.with_options(**FAITHFUL), RELAXED_JSON_OPTIONS.with_options(**FAITHFUL)]


def attempt(work):
    try:
        return work()
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def write(document, options):
    return dumps(bson.decode(document, CODEC), json_options=options, ensure_ascii=False)


def read(text, options):
    return bson.encode(loads(text, json_options=options)).hex()


for line in sys.stdin.buffer:
    document, *texts = line.decode().rstrip("\n").split("\t")
    document = bytes.fromhex(document)
    answer = [attempt(lambda: write(document, options)) for options in FORMS]
    answer += [attempt(lambda: read(text, options)) for text, options in zip(texts, FORMS)]
    print(json.dumps(answer))
