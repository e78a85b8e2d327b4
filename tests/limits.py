"""What one entity's evaluation may cost at most: rules that try to cost more, run one by one through the binary.

    python3 tests/limits.py --tahini PATH [--all] [--seconds N] [--jobs N] [WORD…]

Every rule is a process of its own, so that the processor time and the peak of the memory are the rule's. Each ends
within the bounds, with an error that names a limit or, where the work is small after all, with a result. `--all` adds
every function of the language over every kind of large value, once and a million times: some thousands of runs.
WORDs choose rules by parts of their names.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MEGABYTES = 256
OFTEN = ["range", 0, 1_000_000]
TEXT = ["ljust", 3_000_000, "c", "c"]
DOUBLINGS = 40


@dataclass(frozen=True)
class Case:
    name: str
    # The statements of the rule "default", or all rules by name.
    rules: object
    source: object = None
    # Whether there must be an error; None where either end is right.
    fails: object = True
    options: tuple = ()


@dataclass(frozen=True)
class Ended:
    code: int
    said: str
    seconds: float
    megabytes: float


# ---- rules that grow ----------------------------------------------------------------------------


def nested(step, start, times=35):
    """A value made of itself twice, within one expression."""
    made = start
    for _ in range(times):
        made = ["first", ["map", step, ["list", made]]]
    return made


def grown(step, start, times=DOUBLINGS):
    """The same, statement after statement."""
    return [["add", "x", start], *[step] * times]


def growths():
    again = "_T.x"
    yield "concat", grown(["add", "x", ["concat", again, again]], "abc")
    yield "list", grown(["add", "x", ["list", again, again]], 1)
    yield "combine", grown(["add", "x", ["combine", again, again]], 1)
    yield "insert", grown(["add", "x", ["insert", 0, again, again]], ["list", 1])
    yield "dict", grown(["add", "x", ["dict", "a", again, "b", again]], 1)
    yield "merge", grown(["merge", ["dict", "x", ["list", again, again]]], 1)
    yield "merge-union", grown(["merge-union", ["dict", "x", ["list", ["list", again, 1], ["list", again, 2]]]], 1)
    yield "target", [["add", "x", 1], *[["add", f"x{at}", "_T."] for at in range(DOUBLINGS)]]
    yield "create", [["add", "x", 1], *[["create", ["dict", "_id", "a", "x", ["list", "_T.", "_T."]]], ["add", "x", ["list", "_T.x", "_T.x"]]] * DOUBLINGS]
    yield "create-child", [["create-child", {"_id": "a"}], *[["create-child", ["dict", "_id", "b", "x", "_T.$children"]]] * DOUBLINGS]
    yield "map-dict", grown(["add", "x", ["map-dict", "_.", ["list", "_.", "_."], again]], {"a": 1})
    yield "tuples", grown(["add", "x", ["tuples", again, again]], ["list", 1, 2])
    yield "json", grown(["add", "x", ["json", ["list", again, again]]], "\"")


def applied(step, start=1):
    """A rule that applies itself through `step`, which is to use "_S."."""
    return {"default": [["add", "r", ["apply", "again", start]]], "again": [["add", "r", step]]}


def recursions():
    once = ["apply", "again", "_S."]
    yield "apply", applied(once)
    yield "apply twice", applied(["list", once, once])
    yield "apply deep first", applied(["list", ["apply", "again", ["list", "_S."]], ["apply", "again", ["list", "_S.", "_S."]]])
    yield "apply on parents", applied(["apply", "again", "_P."])
    yield "apply on itself", applied(["apply", "again", ["list", "_T.", "_P.", "_S."]])
    tree = {"default": [["add", "r", ["apply", "again", 30]]], "again": [["if", ["gt", "_S.", 0], ["add", "r", ["apply", "again", ["list", ["-", "_S.", 1], ["-", "_S.", 1]]]]]]}
    yield "apply a tree", tree
    yield "apply and filter", {"default": [["add", "r", ["apply", "again", 30]]], "again": [["if", ["gt", "_S.", 0], ["add", "r", ["apply", "again", ["list", ["-", "_S.", 1], ["-", "_S.", 1]]]]], ["filter", False]]}


# What is done with a value that is small for those who only hold it.
LOOKS = [
    ["eq", "_T.x", "_T.y"], ["neq", "_T.x", "_T.y"], ["gt", "_T.x", "_T.y"], ["strip-ns", ["dict", "x", "_T.x"]], ["apply-ns", "n", ["dict", "x", "_T.x"]],
    ["distinct", "_T.x"], ["sorted", "_T.x"], ["sorted-descending", "_.", "_T.x"], ["max", "_T.x"], ["min", ["list", "_T.x", "_T.y"]],
    ["in", "_T.x", "_T.y"], ["union", "_T.x", "_T.y"], ["intersection", "_T.x", "_T.y"], ["difference", "_T.x", "_T.y"], ["intersects", "_T.x", "_T.y"],
    ["group-by", "_T.x"], ["group", "_.", "_.", "_T.x"], ["json", "_T.x"], ["json-transit", "_T.x"], ["string", "_T.x"], ["json-parse", ["json", "_T.x"]],
    ["concat", "_T.x"], ["join", "-", "_T.x"], ["case-eq", "_T.x", "_T.y", 1], ["boolean", ["json", "_."], ["list", "_T.x"]], ["path", "a", "_T.x"],
]  # fmt: skip


def shared():
    """Each look at each kind of shared value; `y` is equal to `x` and other memory."""
    for kind, step, start in (("list", ["list", "_.", "_."], {"n:a": 1}), ("dict", ["dict", "a", "_.", "b", "_."], 1)):
        made = nested(step, start, 30 if kind == "list" else 24)
        for look in LOOKS:
            yield f"shared {kind}, {json.dumps(look)[:40]}", [["add", "r", ["count", ["map", replaced(look, {"_T.x": "_.", "_T.y": "_."}), ["list", made]]]]]
    for look in LOOKS:
        doubled = [["add", "x", {"a:b": 1}], *[["add", "x", ["list", "_T.x", "_T.x"]]] * 20, ["add", "y", ["list", "_T.x", "_T.x"]], ["add", "x", ["list", "_T.x", "_T.x"]]]
        yield f"doubled, {json.dumps(look)[:40]}", [*doubled, ["add", "z", look], ["remove", ["list", "x", "y"]]]


def replaced(json_value, by):
    if isinstance(json_value, list):
        return [json_value[0], *[replaced(item, by) for item in json_value[1:]]]
    return by.get(json_value, json_value) if isinstance(json_value, str) else json_value


# ---- large values, and every function over them -------------------------------------------------

LARGE = {
    "text": TEXT,
    "accents": ["ljust", 1_000_000, "å", ""],
    "spaces": ["ljust", 3_000_000, " ", "x"],
    "texts": ["map", ["string", "_."], ["range", 0, 100_000]],
    "range": ["range", 0, 1_000_000],
    "lists": ["map", ["list", "_.", ["string", "_."]], ["range", 0, 100_000]],
    "dict": ["dict", ["map", ["list", ["string", "_."], "_."], ["range", 0, 100_000]]],
    "dicts": ["map", ["dict", "_id", ["string", "_."], "a", "_."], ["range", 0, 50_000]],
    "integer": ["^", 10, 9_000],
    "long integer": ["+", 7, ["^", 10, 90_000]],
    "integers": ["map", ["+", "_.", ["^", 10, 9_000]], ["range", 0, 1_000]],
    "decimal": ["^", ["decimal", "1.0000001"], 1_000],
    "times": ["map", ["datetime", "_."], ["range", 0, 100_000]],
    "bytes": ["bytes", TEXT],
    "identifiers": ["map", ["ni", "n", ["string", "_."]], ["range", 0, 100_000]],
    "json": ["json", ["range", 0, 100_000]],
    "nested json": ["json", nested(["list", "_.", "_."], 1, 12)],
}

SMALL = {"integer": 3, "number": 7, "date part": "day", "string": "c", "function": "_.", "default": "_.", "property": "a", "boolean": True, "value": "_T.x", "literal": "n", "rule": "r"}
# What must not be called so often, or needs more than an entity.
# Or keys, which no large value is.
LEFT_OUT = {"decrypt-pgp", "decrypt-pki", "encrypt-pgp", "encrypt-pki", "hops", "apply-hops", "lookup-entity", "completeness", "is-changed", "sleep!"}
FORMATS = {"datetime-format": "%Y-%m-%dT%H:%M:%S.%f", "datetime-parse": "%Y-%m-%dT%H:%M:%S.%f", "hash128": "murmur3", "matches": "*a?b*"}


def arguments(function, large):
    """Arguments of every kind; `large` puts the large value wherever an expression may stand."""
    for arg in function["args"]:
        kind, last = arg["kind"], arg["name"] == function["args"][-1]["name"]
        if arg["many"] == "optional" and kind not in ("value", "integer", "number") or kind == "hops":
            continue
        if kind == "string" and function["name"] in FORMATS:
            yield FORMATS[function["name"]]
        elif "TIMEZONE" in arg["name"]:
            yield "Europe/Oslo"
        elif kind in ("value", "string", "integer", "number") and (large or last or kind == "value"):
            yield "_T.x"
        else:
            yield SMALL.get(kind, "_T.x")


def every_function(functions):
    for function in functions:
        if function["is_transform"] or function["name"] in LEFT_OUT:
            continue
        for kind, value in LARGE.items():
            for large in (False, True):
                call = [function["name"], *arguments(function, large)]
                if large and call == [function["name"], *arguments(function, False)]:
                    continue
                rules = lambda expr: {"default": [["add", "x", value], ["add", "r", ["count", expr]], ["remove", "x"]], "r": [["copy", "*"], ["add", "s", "_S."]]}
                which = f"{function['name']} of {kind}{', twice' if large else ''}"
                yield Case(f"{which}, once", rules(call), fails=None)
                yield Case(f"{which}, often", rules(["map", call, OFTEN]), fails=None)


# ---- the set ------------------------------------------------------------------------------------


def over(prelude, each, times=OFTEN):
    return [["add", "x", prelude], ["add", "r", ["count", ["map", each, times]]], ["remove", "x"]]


def repeated():
    """Little work, or much of it, a million times."""
    text, number = "_T.x", ["^", 10, 9_000]
    for each in (["list", *[1] * 500], ["dict", "a", 1, "b", 2, "c", 3], ["concat", *["0123456789"] * 90, ["string", "_."]], ["upper", "_S.t"], "_S.t", ["range", 0, 100], ["tuples", ["list", 1, 2, 3], ["list", 4, 5, 6]], ["split", "-", "a-b-c-d-e-f"], ["json-parse", "[1,2,3,{\"a\":[4,5,6]}]"], ["now"], ["uuid"], ["enumerate", ["list", 1, 2, 3]]):
        yield f"a million times {json.dumps(each)[:40]}", [["add", "r", ["count", ["map", each, OFTEN]]]]
    for each in (["matches", "*ab*", text], ["matches", "*a*b*a?", text], ["length", text], ["replace", "c", "cc", text], ["replace", {"c": "d", "cccccccccccccccccccccd": "e"}, text], ["split", "c", text], ["split", "", text], ["join", text, ["list", "a", "b"]], ["upper", text], ["lower", text], ["strip", "c", text], ["eq", text, "_."], ["eq", ["first", text], text], ["in", text, ["list", text, "a"]], ["substring", 1, 2, text], ["substring", 2_999_990, text], ["json", text], ["json-parse", text], ["integer", text], ["decimal", text], ["float", text], ["datetime", text], ["datetime-parse", "%Y", text], ["url-quote", text], ["url-unquote", text], ["base64-decode", text], ["hash128", "murmur3", text], ["uuid", text], ["ni-ns", text], ["ni", "a", text], ["dict", text, 1], ["bytes", text], ["phonenumber-parse", "NO", text], ["sorted", ["list", text, "a"]], ["ljust", 4_000_000, "x", text], ["strip-ns", ["dict", ["concat", text, "a"], 1]], ["path", text, {"a": 1}], ["encrypt", "secret", text]):
        yield f"over a long text {json.dumps(each)[:40]}", over(TEXT, each)
    for each in (["/", 1, ["+", "_.", text]], ["/", text, ["+", "_.", 3]], ["*", text, ["+", "_.", text]], ["%", text, ["+", "_.", 7]], ["^", text, 10], ["^", "_.", 5_000], ["+", text, "_."], ["string", text], ["hex", text], ["integer", text], ["decimal", text], ["float", text], ["eq", text, ["float", "_."]], ["gt", text, "_."], ["distinct", ["list", text, "_."]], ["round", 5, ["/", 1, text]], ["divide", text, "_."], ["pow", 9, text], ["sqrt", text], ["floor", 100, text], ["json", text], ["sum", ["list", text, text]]):
        yield f"over a long number {json.dumps(each)[:40]}", over(number, each)
    for each in (["datetime-parse", "%Y-%m-%dT%H:%M:%S", "2015-07-28T09:46:00"], ["datetime-format", "Europe/Oslo", "%Y-%m-%dT%H:%M:%S.%f", ["datetime", "_."]], ["datetime-shift", "Europe/Oslo", "America/New_York", ["datetime", "_."]], ["datetime-plus", "month", "_.", ["now"]], ["datetime-diff", "day", ["now"], ["datetime", "_."]], ["datetime", "2015-07-28T09:46:00Z"], ["datetime-format", ["concat", "Europe/", "Oslo"], ["concat", *["%Y"] * 1_000], ["now"]]):
        yield f"times {json.dumps(each)[:60]}", over(1, each)
    thousand = ["range", 0, 1_000]
    yield "filter in map in map", over(thousand, ["map", ["filter", ["any", ["eq", "_.", 5], "_T.x"], "_T.x"], "_T.x"], thousand)
    yield "any in filter", [["add", "r", ["count", ["filter", ["any", ["gt", "_.", 5000], ["range", 0, 5000]], ["range", 0, 5000]]]]]
    lists = ["map", ["map", ["list", "_.", ["string", "_."]], ["range", 0, 30]], ["range", 0, 3_000]]
    for each in (["eq", text, ["list", text, 1]], ["eq", text, ["reversed", text]], ["in", ["list", 1], ["list", text]], ["distinct", ["list", text, text]], ["gt", ["list", text], text], ["union", text, text], ["sorted", text], ["max", text]):
        yield f"over lists of lists {json.dumps(each)[:40]}", over(lists, each)
    wide = ["dict", ["map", ["list", ["string", "_."], "_."], ["range", 0, 10_000]]]
    for each in ("_T.x.9999", "_T.x.no", ["has-key", "no", text], ["path", "no", text], ["keys", text], ["values", text], ["items", text], ["key-values", text], ["map-dict", "_.", "_.", text], ["map-values", "_.", text], ["eq", text, ["dict"]], ["apply", "again", text], ["strip-ns", text], ["apply-ns", "n", text], ["combine", text, text], ["dict", ["items", text]]):
        rules = {"default": over(wide, each), "again": [["copy", "*"], ["rename", "1", "2"], ["add", "_id", "_S.9999"]]}
        yield f"over a wide dict {json.dumps(each)[:40]}", rules


def statements():
    """Statements instead of expressions, in a rule that is applied to many values."""
    wide = ["dict", ["map", ["list", ["concat", "a", ["string", "_."]], "_."], ["range", 0, 5_000]]]
    many = ["range", 0, 100_000]
    for statement in (["copy", "*"], ["copy", "*9*9*", "*8*"], ["merge", "_P._T.x"], ["merge-union", "_P._T.x"], ["rename", "a9", "b"], ["rename", ["keys", "_P._T.x"], ["keys", "_P._T.x"]], ["make-ni", "n", ["keys", "_P._T.x"]], ["add", ["keys", "_P._T.x"], 1], ["default", ["keys", "_P._T.x"], 1], ["remove", "*9"], ["create", ["dict", "_id", "a", "x", "_P._T.x"]], ["create-child", ["dict", "_id", "a", "x", "_P._T.x"]], ["add", "all", "_P."], ["add", "all", "_R."], ["create-child", ["map", ["dict", "_id", ["string", "_."]], ["range", 0, 1_000]]]):
        rules = {"default": [["add", "x", wide], ["add", "r", ["count", ["map", ["apply", "one", ["dict", "x", "_.", "all", "_T.x"]], many]]], ["remove", "x"]],
                 "one": [["merge", "_P._T.x"], *[statement] * 3], }  # fmt: skip
        yield f"statement {json.dumps(statement)[:40]}", rules
        yield f"statement over source {json.dumps(statement)[:40]}", {"default": [["add", "x", wide], ["add", "r", ["count", ["map", ["apply", "one", "_T.x"], many]]], ["remove", "x"]], "one": [statement] * 3}
    yield "many names", [["add", ["map", ["string", "_."], ["range", 0, 1_000_000]], 1]]
    yield "many children", [["create-child", ["map", ["dict", "_id", ["string", "_."]], ["range", 0, 1_000]]]] * 2_000
    yield "one text in many properties", [["add", "p", ["ljust", 32_000_000, "x", ""]], *[["add", f"p{at}", "_T.p"] for at in range(20)]]
    yield "names in a text", [["add", "x", ["dict", ["map", ["list", ["concat", "c", ["string", "_."]], "y"], ["range", 0, 50_000]]]], ["add", "r", ["count", ["map", ["replace", "_T.x", TEXT], ["range", 0, 1_000]]]], ["remove", "x"]]
    yield "as many names as may be", [["add", "x", ["dict", ["map", ["list", ["concat", "c", ["string", "_."]], "y"], ["range", 0, 10_000]]]], ["add", "r", ["count", ["map", ["replace", "_T.x", TEXT], ["range", 0, 1_000]]]], ["remove", "x"]]
    yield "a long name in a text", [["add", "r", ["count", ["map", ["replace", ["ljust", 1_000_000, "c", "cd"], "_.", TEXT], ["range", 0, 1_000]]]]]
    yield "a long part in a pattern", [["add", "r", ["matches", ["concat", "*", ["ljust", 1_000_000, "c", "c"], "?d*"], TEXT]]]
    yield "a long path", [["add", "r", ["path", ["map", ["string", "_."], ["range", 0, 1_000_000]], ["list", {"a": 1}]]]]
    yield "a long path through lists", [["add", "r", ["path", ["map", ["string", "a"], ["range", 0, 1_000_000]], ["json-parse", "{}"]]]]
    yield "many letters", [["add", "r", ["split", "", ["ljust", 30_000_000, "c", ""]]]]
    yield "much JSON", [["add", "r", ["json-parse", ["concat", "[", ["ljust", 30_000_000, ",", "0"], "0]"]]]]
    yield "much JSON of lists", [["add", "x", ["concat", ["string", ["ljust", 300_000, "x", ""]]]], ["add", "r", ["json-parse", ["concat", "[", ["replace", "x", "[0],", "_T.x"], "0]"]]], ["add", "r", ["json-parse", ["concat", "[", ["replace", "x", "[0],[0],[0],[0],[0],[0],[0],[0],[0],[0],[0],", "_T.x"], "0]"]]]]
    yield "one text created often", [["add", "p", ["ljust", 1_000_000, "x", ""]], ["create", ["map", ["dict", "_id", ["string", "_."], "p", "_T.p"], ["range", 0, 10_000]]]]
    yield "remove after each", [["add", ["map", ["string", "_."], ["range", 0, 20_000]], 1], *[["remove", "*x*y*z*"]] * 2_000]
    yield "copy after each", [["add", ["map", ["string", "_."], ["range", 0, 20_000]], 1], *[["copy", "*"]] * 2_000]


def namespaced():
    """Several properties that an unqualified name reads: their values are compared."""
    options = (("namespaced_identifiers", True),)
    large = ["range", 0, 500_000]
    for name, rules in (
        ("target", [["add", "a:x", large], ["add", "b:x", large], *[["add", "r", ["count", "_T.x"]]] * 200]),
        ("values", [["add", "r", ["count", ["map", ["count", "_T.x"], OFTEN]]]]),
        ("dict", [["add", "::d", ["dict", "a:x", ["range", 0, 1_000], "b:x", ["range", 0, 1_000]]], ["add", "r", ["count", ["map", "_T.d.x", OFTEN]]]]),
        ("dicts", [["add", "::d", ["map", ["dict", "a:x", ["range", 0, 100], "b:x", ["range", 0, 100]], ["range", 0, 10_000]]], *[["add", "r", ["count", "_T.d.x"]]] * 100]),
        ("shared", [["add", "r", ["map", "_.x", ["map", ["dict", "a:x", "_.", "b:x", ["list", "_."]], ["list", nested(["list", "_.", "_."], 1, 30)]]]]]),
        ("rename", [["add", "r", ["count", ["map", ["apply", "one", ["dict", "a:x", ["range", 0, 1_000], "b:x", ["range", 0, 1_000]]], ["range", 0, 100_000]]]]]),
        ("source", [["add", "r", ["count", ["map", "_S.x", OFTEN]]]]),
    ):  # fmt: skip
        rules = {"default": rules, "one": [["rename", "x", "::y"], ["make-ni", "n", "x", "::z"]]}
        yield Case(f"under one identifier: {name}", rules, {"a:x": list(range(2000)), "b:x": list(range(2000))}, options=options, fails=None)


def deep():
    """Values deeper than any stack: a statement, or a rule, adds some levels each time."""
    inner = "_T.x"
    for _ in range(60):
        inner = ["list", inner]
    yield Case("deep by statements", [["add", "x", 1], *[["add", "x", inner]] * 2_000, ["remove", "x"]])
    yield Case("deep by dicts", [["add", "x", 1], *[["add", "x", ["dict", "a", "_T."]]] * 20_000, ["remove", "x"]])
    yield Case("deep by merge", [["add", "x", 1], *[["merge", ["dict", "x", ["list", "_T.x"]]]] * 20_000, ["remove", "x"]])
    yield Case("deep by children", [["create-child", {"_id": "1"}], *[["create-child", ["dict", "_id", "1", "c", "_T.$children"]], ["add", "_T.$children", 1]] * 200])
    yield Case("deep by json", [["add", "x", ["json-parse", ["concat", ["ljust", 1_000_000, "[", ""], ["ljust", 1_000_000, "]", ""]]]]], fails=None)
    for name, rules in (("rule", applied(["list", ["apply", "again", ["list", "_S."]]])), ("dicts", applied(["apply", "again", ["dict", "a", "_S.", "b", "_T."]]))):
        yield Case(f"deep by {name}", rules)


def cases():
    for kind, rules in (*growths(), *recursions()):
        yield Case(f"growth: {kind}", rules)
    for name, rules in (*shared(), *repeated(), *statements()):
        yield Case(name, rules, {"t": "0123456789" * 10}, fails=None)
    yield from namespaced()
    yield from deep()


# ---- running ------------------------------------------------------------------------------------


def rules_of(case):
    rules = case.rules if isinstance(case.rules, dict) else {"default": case.rules}
    pipe = {"_id": "pipe", "type": "pipe", "source": {"type": "embedded", "entities": []}, **dict(case.options)}
    return json.dumps({**pipe, "transform": {"type": "dtl", "rules": rules}})


def run(tahini, case, *, timeout=120, more=()):
    """One rule through one process; its own processor time, and the peak of its memory."""
    with tempfile.TemporaryDirectory(prefix="tahini-limits-") as folder:
        file = Path(folder) / "pipe.conf.json"
        file.write_text(rules_of(case), "utf-8")
        entity = Path(folder) / "entity.json"
        entity.write_text(json.dumps({"_id": "1", **(case.source or {})}) + "\n", "utf-8")
        # A trace tells on stdout what an evaluation ended with.
        result = Path(folder) / "result" if more else Path(os.devnull)
        with entity.open("rb") as source, result.open("wb") as out, open(Path(folder) / "said", "w+b") as said:
            process = subprocess.Popen(["timeout", str(timeout), tahini, "transform", *more, str(file)], stdin=source, stdout=out, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            words = said.read().decode("utf-8", "replace") + (last(result) if more else "")
            return Ended(process.returncode, words, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def last(file, most=20_000):
    """The end of a file."""
    with file.open("rb") as text:
        text.seek(max(0, file.stat().st_size - most))
        return text.read().decode("utf-8", "replace")


def wrong(case, ended, seconds, megabytes=MEGABYTES):
    """What is wrong with how a rule ended; None when nothing is."""
    if ended.seconds > seconds or ended.megabytes > megabytes:
        return f"{ended.seconds:.1f} s, {ended.megabytes:.0f} MB: {ended.said.strip()[-120:]}"
    if ended.code not in (0, 1) or "panicked" in ended.said:
        return f"code {ended.code}: {ended.said.strip()[-300:]}"
    if ended.code == 1 and "expected at most" not in ended.said:
        return f"another error: {ended.said.strip()[-300:]}"
    if case.fails and ended.code == 0:
        return "expected an error that names a limit, found none"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tahini", default=os.environ.get("TAHINI"))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--slowest", type=int, default=10)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    chosen = list(cases())
    if given.all:
        told = subprocess.run([given.tahini, "explain", "--json"], check=True, capture_output=True, text=True).stdout
        chosen += every_function(json.loads(told))
    chosen = [case for case in chosen if not given.words or any(word in case.name for word in given.words)]
    failures, slowest = 0, []
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        for case, ended in zip(chosen, pool.map(lambda case: run(given.tahini, case), chosen), strict=True):
            verdict = wrong(case, ended, given.seconds)
            failures += verdict is not None
            slowest.append((ended.seconds, ended.megabytes, case.name))
            if verdict:
                print(f"{case.name}: {verdict}", flush=True)
    for seconds, megabytes, name in sorted(slowest, reverse=True)[: given.slowest]:
        print(f"  {seconds:5.2f} s {megabytes:5.0f} MB  {name}")
    print(f"{len(chosen)} rules, {failures} wrong; most memory {max((m for _, m, _ in slowest), default=0):.0f} MB")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
