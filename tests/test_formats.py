"""CSV, XML and workbooks through the binary, held against Python's own modules for them, and in bounded memory.

Needs the environment variable TAHINI: the path of a built node.
"""

import csv
import http.client
import http.server
import io
import json
import os
import random
import re
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from nodes import Node, Peak

TAHINI = os.environ["TAHINI"]
GUIDE = Path(__file__).resolve().parents[1] / "docs/guide/formats.md"
MB = 1 << 20
# What a node may take while a file of LARGE bytes goes through.
MEMORY = 64 * MB
LARGE = 128 * MB
PIECES = ["a", "1", "-2.5", "", " ", ",", ";", '"', '""', "'", "\\", "\n", "\r\n", "å", "€", "😀", "\t", "|", "x" * 40]
ERRORS = ["backslashreplace", "xmlcharrefreplace", "replace", "ignore"]


class Files(http.server.BaseHTTPRequestHandler):
    """Answers with what is laid out, whole or as pieces that are made meanwhile."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = self.server.files[self.path.partition("?")[0]]
        pieces = [found] if isinstance(found, bytes) else found()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in filter(None, pieces):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            # The node has what it wanted.
            self.close_connection = True

    def log_message(self, *_):
        pass


def text(random_):
    return "".join(random_.choice(PIECES) for _ in range(random_.randint(0, 4)))


def without_returns(value):
    return value.replace("\r", "") if isinstance(value, str) else value


class Formats(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="tahini-formats-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
        self.server.daemon_threads = True
        self.server.files = {}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.random = random.Random(5)

    def node(self, *pipes):
        system = {"_id": "files", "type": "system:url", "url_pattern": f"http://127.0.0.1:{self.server.server_port}/%s"}
        pipes = [{"type": "pipe", "pump": {"mode": "manual"}, **pipe} for pipe in pipes]
        node = Node(TAHINI, self.folder, [system, *pipes])
        self.addCleanup(node.end)
        return node.start()

    def file(self, name, kind="csv", **more):
        """A source that reads a file of that name."""
        return {"type": kind, "system": "files", "url": f"{name}.{kind}", **more}

    def published(self, node, pipe, what):
        status, headers, body = node.ask("GET", f"/api/publishers/{pipe}/{what}")
        self.assertEqual(status, 200, body[:500])
        return headers, body

    def test_what_a_csv_endpoint_writes_is_what_python_writes(self):
        values = [[text(self.random) for _ in range(3)] + [self.random.choice([None, 1, -7, 10**25, 2.5, 1e300])] for _ in range(60)]
        entities = [{"_id": str(at), **dict(zip("abcd", row))} for at, row in enumerate(values)]
        quotings = {"all": csv.QUOTE_ALL, "minimal": csv.QUOTE_MINIMAL, "non-numeric": csv.QUOTE_NONNUMERIC}
        styles = [(quoting, delimiter, quote, double, end) for quoting in quotings for delimiter in ",;\t" for quote in "\"'" for double in (True, False) for end in ("\r\n", "\n")]
        pipes, expected = [], {}
        for at, (quoting, delimiter, quote, double, end) in enumerate(styles):
            encoding, errors = ["utf-8", "iso-8859-1", "cp1252", "ascii", "cp850", "utf-16-le"][at % 6], ERRORS[at % 4]
            sink = {"type": "csv_endpoint", "columns": list("abcd"), "quoting": quoting, "delimiter": delimiter, "quotechar": quote, "doublequote": double, "lineterminator": end, "encoding": encoding, "encode_error_strategy": errors}
            # A lone carriage return is quoted whatever ends a row, which older versions of Python do not do.
            all_ends = end == "\r\n"
            pipes.append({"_id": f"out-{at}", "source": {"type": "dataset", "dataset": "all" if all_ends else "plain"}, "sink": sink})
            out = io.StringIO()
            writer = csv.writer(out, delimiter=delimiter, quotechar=quote, doublequote=double, escapechar=None if double else "\\", quoting=quotings[quoting], lineterminator=end)
            writer.writerow("abcd")
            writer.writerows([value if all_ends else without_returns(value) for value in row] for row in values)
            expected[f"out-{at}"] = out.getvalue().encode(encoding, errors)
        plain = [{name: without_returns(value) for name, value in entity.items()} for entity in entities]
        node = self.node(*({"_id": name, "source": {"type": "embedded", "entities": found}} for name, found in (("all", entities), ("plain", plain))), *pipes)
        node.run("all"), node.run("plain")
        for name, wanted in expected.items():
            _, found = self.published(node, name, "csv")
            self.assertEqual(found, wanted, f"{name}: {styles[int(name[4:])]}")

    def test_what_python_writes_is_read(self):
        pipes, wanted = [], {}
        for at, (delimiter, quoting, encoding) in enumerate((d, q, e) for d in ",;\t|" for q in (csv.QUOTE_ALL, csv.QUOTE_MINIMAL) for e in ("utf-8-sig", "iso-8859-15", "utf-16")):
            rows = [[str(n), *(text(self.random).replace("😀", "ß") for _ in range(3))] for n in range(40)]
            out = io.StringIO()
            writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
            writer.writerows([["id", "a", "b", "c"], *rows])
            self.server.files[f"/f{at}.csv"] = out.getvalue().encode(encoding)
            # The delimiter is guessed.
            pipes.append({"_id": f"p{at}", "source": self.file(f"f{at}", primary_key="id", encoding=encoding, preserve_empty_strings=True)})
            wanted[f"p{at}"] = {row[0]: row for row in rows}
        node = self.node(*pipes)
        for name, rows in wanted.items():
            node.run(name)
            found = {one["_id"]: [one[column] for column in ("id", "a", "b", "c")] for one in node.entities(name)}
            self.assertEqual(found, rows, name)

    def test_xml_is_what_python_reads_in_it(self):
        texts = ["".join(c for c in text(self.random) if c != "\r") for _ in range(30)]
        entities = [{"_id": str(at), "id": str(at), "t": one, "<e>": [{"<v>": one}, {"x": one, "<w>": None}]} for at, one in enumerate(texts)]
        out = {"_id": "out", "source": {"type": "dataset", "dataset": "all"}, "sink": {"type": "xml_endpoint", "wrapper": "all", "include-xml-decl": True}}
        back = {"_id": "back", "source": self.file("back", "xml", primary_key="@id")}
        node = self.node({"_id": "all", "source": {"type": "embedded", "entities": entities}}, out, back)
        node.run("all")
        _, body = self.published(node, "out", "xml")
        root = ElementTree.fromstring(body)
        found = [(one.get("id"), one.get("t"), one.find("v").text or "", one.find("w").get("x")) for one in root]
        self.assertEqual(found, [(str(at), one, one, one) for at, one in enumerate(texts)])
        self.server.files["/back.xml"] = body
        node.run("back")
        again = {one["_id"]: (one["@t"], one["v"] or "", one["w"]["@x"]) for one in node.entities("back")}
        self.assertEqual(again, {str(at): (one, one.strip(), one) for at, one in enumerate(texts)})

    def test_a_workbook_is_one(self):
        entities = [{"_id": str(at), "a": text(self.random), "n": self.random.choice([1, 2.5, "~f0.10", True])} for at in range(50)]
        sink = {"type": "csv_endpoint", "columns": ["_id", "a", "n"]}
        node = self.node({"_id": "all", "source": {"type": "embedded", "entities": entities}}, {"_id": "out", "source": {"type": "dataset", "dataset": "all"}, "sink": sink})
        node.run("all")
        _, body = self.published(node, "out", "excel")
        with zipfile.ZipFile(io.BytesIO(body)) as book:
            self.assertIsNone(book.testzip())
            for name in book.namelist():
                ElementTree.fromstring(book.read(name))
            sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
        space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
        rows = [["".join(cell.itertext()) for cell in row] for row in sheet.iter(f"{space}row")]
        self.assertEqual(rows[0], ["_id", "a", "n"])
        bare = lambda value: {True: "1"}[value] if value is True else str(value).removeprefix("~f")
        written = lambda value: value.replace("\r", "_x000D_")
        self.assertEqual(rows[1:], [[one["_id"], written(one["a"]), bare(one["n"])] for one in entities])

    def test_the_guides_pipes_are_valid(self):
        blocks = re.findall(r"^```json\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
        pipes = [found for block in blocks if (found := json.loads(block)).get("type") == "pipe"]
        self.assertEqual([pipe["_id"] for pipe in pipes], ["countries", "orders", "my-entities"])
        filled = {"_id": "fill", "source": {"type": "embedded", "entities": []}, "sink": {"type": "dataset", "dataset": "my-entities"}}
        node = self.node(filled, *pipes)
        self.assertIn(" 0 errors, 0 warnings", node.command("validate", node.project))

    def test_large_files_stream_both_ways(self):
        row = "{}," + ",".join(["lorem ipsum dolor"] * 10) + "\n"

        def rows():
            yield b"id,a,b,c,d,e,f,g,h,i,j\n"
            sent = at = 0
            while sent < LARGE:
                piece = "".join(row.format(n) for n in range(at, at + 1000)).encode()
                at, sent = at + 1000, sent + len(piece)
                yield piece

        def elements():
            yield b"<all>"
            sent = at = 0
            while sent < LARGE:
                piece = "".join(f"<e id='{n}'><a>lorem ipsum dolor</a><b>{'x' * 100}</b></e>\n" for n in range(at, at + 1000)).encode()
                at, sent = at + 1000, sent + len(piece)
                yield piece
            yield b"</all>"

        self.server.files.update({"/large.csv": rows, "/large.xml": elements})
        from_csv = self.file("large", primary_key="id")
        node = self.node(
            {"_id": "as-csv", "source": from_csv, "sink": {"type": "csv_endpoint", "columns": ["_id", "a", "j"]}},
            {"_id": "from-xml", "source": self.file("large", "xml", primary_key="@id"), "sink": {"type": "null"}},
            {"_id": "as-xml", "source": from_csv, "transform": {"type": "dtl", "rules": {"default": [["copy", "_id"], ["add", "<e>", "_S.a"]]}}, "sink": {"type": "xml_endpoint", "wrapper": "w"}},
        )
        for what, job in [
            ("csv", lambda: self.read_all(node, "/api/publishers/as-csv/csv")),
            ("excel", lambda: self.read_all(node, "/api/publishers/as-csv/excel?limit=200000")),
            ("xml source", lambda: node.run("from-xml", 600)),
            ("xml", lambda: self.read_all(node, "/api/publishers/as-xml/xml?limit=400000")),
        ]:
            with self.subTest(what):
                self.within(node, job)

    def read_all(self, node, path):
        """Reads a body to its end without keeping it."""
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=600)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        count = 0
        with connection.getresponse() as answer:
            self.assertEqual(answer.status, 200)
            while piece := answer.read(MB):
                count += len(piece)
        # A workbook of so much of the same is small.
        self.assertGreater(count, MB // 4)

    def within(self, node, job):
        """A job that takes longer than a moment, and what the node takes of memory meanwhile."""
        peak = Peak(node, every=0.05)
        try:
            job()
        finally:
            taken = peak.taken()
        print(f"at most {taken // MB} MB")
        self.assertLess(taken, MEMORY)


if __name__ == "__main__":
    unittest.main()
