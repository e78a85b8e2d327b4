"""A stand-in for the small demo service of tutorials: three orders, in an object."""

from standin import Answer, Refused, StandIn

PATH = "/api/orders"
START = (
    (1, "Unjudosely", "Thinkpad", 8000),
    (2, "Wimen1979", "MacbookPro", 12000),
    (3, "Gotin1984", "Chormebook", 10000),
)


class Orders(StandIn):
    name = "orders"
    port = 9255

    def load(self):
        self.orders = {
            str(number): {"id": number, "Username": name, "Orders": what, "TotalSum": total}
            for number, name, what, total in START
        }

    def counters(self):
        return {"records": len(self.orders)}

    def edit(self, identity, properties, at):
        self.orders[identity].update(properties)

    def delete(self, identity):
        del self.orders[identity]

    def answer(self, request):
        if request.path != PATH:
            raise Refused(404, {"message": "Not found"})
        if request.method != "GET":
            raise Refused(405, {"message": "Method not allowed"}, {"Allow": "GET"})
        return Answer(200, {"orders": list(self.orders.values())})
