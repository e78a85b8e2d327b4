"""A stand-in for a look-up API: from a Norwegian postal code to its town and municipality."""

import re

from standin import Answer, Refused, StandIn

KEY = "demo-postcode-key-19aa"
ONE = re.compile(r"/v1/postcodes/([^/]+)")
PLACES = {
    "0150": ("Oslo", "Oslo"),
    "0368": ("Oslo", "Oslo"),
    "1440": ("Drøbak", "Frogn"),
    "2317": ("Hamar", "Hamar"),
    "2609": ("Lillehammer", "Lillehammer"),
    "3015": ("Drammen", "Drammen"),
    "3770": ("Kragerø", "Kragerø"),
    "4006": ("Stavanger", "Stavanger"),
    "4611": ("Kristiansand", "Kristiansand"),
    "5003": ("Bergen", "Bergen"),
    "6003": ("Ålesund", "Ålesund"),
    "7010": ("Trondheim", "Trondheim"),
    "8006": ("Bodø", "Bodø"),
    "9008": ("Tromsø", "Tromsø"),
    "9900": ("Kirkenes", "Sør-Varanger"),
}


class Postcode(StandIn):
    name = "postcode"
    port = 9254

    def load(self):
        self.places = {code: {"town": town, "municipality": area} for code, (town, area) in PLACES.items()}

    def counters(self):
        return {"records": len(self.places)}

    def edit(self, identity, properties, at):
        self.places[identity].update(properties)

    def delete(self, identity):
        del self.places[identity]

    def answer(self, request):
        if request.headers.get("X-Api-Key") != KEY:
            raise Refused(401, {"error": "The key is wrong or missing."})
        one = ONE.fullmatch(request.path)
        if not one or request.method != "GET":
            raise Refused(404, {"error": f"There is no {request.method} {request.path}."})
        code = one[1]
        if not re.fullmatch(r"[0-9]{4}", code):
            raise Refused(400, {"error": f"A postal code has four digits; found {code!r}."})
        if code not in self.places:
            raise Refused(404, {"error": f"There is no postal code {code}.", "code": code})
        return Answer(200, {"code": code, **self.places[code]})
