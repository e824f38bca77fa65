"""Makes the shop's data: `python -m demo.make_data [diamonds.csv]`. One source gives the same files every time.

The stones are real (see `demo/data/README.md`); who buys them and what they say is made up, each table from a seed of
its own, so that changing one leaves the others as they were.
"""

import argparse
import csv
import random
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

from demo.services.records import CLARITIES, COLORS, CUTS, DATA, Order, Product, read, read_orders, rows

Table = Iterable[Sequence[object]]  # the column names, then the rows

STONES = 4_000
CUSTOMERS = 200
ORDERS = 1_500
BESTSELLERS = 400
REGULAR = 7  # the customer of the examples, who buys often
TODAY = date(2026, 6, 30)
SALE_BEGAN = date(2026, 1, 1)  # orders from before it paid the list price
CENT = Decimal("0.01")

NAMES = {  # given names, family names: people are named within one row
    ("Amara", "Chidi", "Ngozi", "Emeka"): ("Okafor", "Adeyemi", "Nwosu", "Eze"),
    ("Aiko", "Haruto", "Yui", "Ren"): ("Tanaka", "Kobayashi", "Mori", "Fujita"),
    ("Łukasz", "Zofia", "Jakub", "Małgorzata"): ("Wójcik", "Zieliński", "Dąbrowska", "Krawczyk"),
    ("Aylin", "Emre", "Çağla", "Burak"): ("Çelik", "Şahin", "Öztürk", "Demir"),
    ("Inés", "Mateo", "Lucía", "Joaquín"): ("Muñoz", "Ibáñez", "Castro", "Peña"),
    ("Linh", "Minh", "Thảo", "Đức"): ("Nguyễn", "Trần", "Phạm", "Lê"),
    ("Priya", "Arjun", "Meera", "Rohan"): ("Iyer", "Chatterjee", "Deshmukh", "Reddy"),
    ("Fatima", "Yusuf", "Layla", "Omar"): ("Haddad", "Mansour", "El-Amin", "Khoury"),
    ("Åsa", "Bjørn", "Sigrún", "Mikkel"): ("Lindqvist", "Østergaard", "Haugen", "Nyström"),
    ("Aoife", "Rhys", "Isla", "Ewan"): ("O'Sullivan", "Pritchard", "MacLeod", "Whitcombe"),
    ("Kaia", "Tāne", "Leilani", "Manu"): ("Parata", "Kealoha", "Ngata", "Tuilagi"),
    ("Zoë", "Bas", "Élodie", "Théo"): ("van den Berg", "de Vries", "Lefèvre", "Moreau"),
    ("Олена", "Богдан", "Ірина", "Андрій"): ("Коваленко", "Шевчук", "Бойко", "Мельник"),
    ("Thandiwe", "Sipho", "Makena", "Wanjiru"): ("Dlamini", "Khumalo", "Mwangi", "Otieno"),
    ("Tayen", "Aponi", "Kai", "Winona"): ("Begay", "Tsosie", "Redhawk", "Yazzie"),
}
CITIES = (
    ("Lagos", "NG"), ("Osaka", "JP"), ("Kraków", "PL"), ("İzmir", "TR"), ("Valparaíso", "CL"), ("Đà Nẵng", "VN"),
    ("Pune", "IN"), ("Beirut", "LB"), ("Malmö", "SE"), ("Cork", "IE"), ("Wellington", "NZ"), ("Antwerp", "BE"),
    ("Львів", "UA"), ("Nairobi", "KE"), ("Albuquerque", "US"), ("Montréal", "CA"), ("Porto", "PT"), ("Graz", "AT"),
)  # fmt: skip

OPENINGS = {
    5: ("I keep looking at my hand.", "Better than the pictures.", "Everything I hoped for.", "She said yes."),
    4: ("Very happy with it.", "A lovely stone.", "Good value.", "Nearly perfect."),
    3: ("It is fine.", "Decent for the price.", "Mixed feelings.", "About what I expected."),
    2: ("I expected more.", "Not for me.", "Underwhelming in daylight."),
    1: ("I sent it back.", "A disappointment.", "Would not buy it again."),
}
NOTHING_TO_PRAISE = "it suits us"
NOTHING_TO_BLAME = "the pictures promised more"
SPARKLE = {
    "Ideal": "the ideal cut throws light across the room",
    "Premium": "the premium cut is all fire under warm light",
    "Very Good": "the cut is livelier than its grade suggests",
    "Good": "the cut holds its own by candlelight",
    "Fair": "the cut is sleepy under office lamps",
}


def main() -> None:
    """Writes every file."""
    parser = argparse.ArgumentParser(prog="python -m demo.make_data", description="Make the files under demo/data.")
    parser.add_argument("source", nargs="?", type=Path, help="diamonds.csv (default: the one inside plotnine)")
    source = parser.parse_args().source or installed_source()

    write("products", products(source))
    for table, make in MADE_UP.items():
        write(table, make())


def installed_source() -> Path:
    """The data set inside an installed plotnine, which is not imported: its dependencies are not needed."""
    plotnine = find_spec("plotnine")
    if plotnine is None or plotnine.origin is None:
        raise SystemExit("name a diamonds.csv, or `pip install --no-deps plotnine`, which has one")
    return Path(plotnine.origin).parent / "data" / "diamonds.csv"


def write(table: str, content: Table) -> None:
    """Writes one file under `demo/data`."""
    with (DATA / f"{table}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(content)


def products(source: Path) -> Table:
    """A sample of the source's stones, in its order, some of them on sale and some sold out."""
    rng = random.Random("products")
    with source.open(encoding="utf-8", newline="") as file:
        stones = [stone for stone in csv.DictReader(file) if plausible(stone)]
    measures = ("carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z")

    yield ("sku", *measures, "list_price", "price", "stock")
    for number, index in enumerate(sorted(rng.sample(range(len(stones)), STONES)), start=1):
        stone = stones[index]
        listed = Decimal(stone["price"]).quantize(CENT)
        discount = Decimal(rng.choices(("0", "5", "7.5", "12.5"), (70, 14, 10, 6))[0])
        price = (listed * (100 - discount) / 100).quantize(CENT)
        stock = 0 if rng.random() < 0.04 else rng.randint(1, 12)
        yield (f"D-{number:05}", *(stone[measure] for measure in measures), listed, price, stock)


def plausible(stone: dict[str, str]) -> bool:
    """The source has a few stones without a size, and a few larger than a plum."""
    return all(0 < float(stone[side]) < 20 for side in "xyz")


def users() -> Table:
    """Customers, no two of one name."""
    rng = random.Random("users")
    names = [f"{given} {family}" for row in NAMES.items() for given in row[0] for family in row[1]]

    yield ("id", "name", "email", "city", "country", "tier", "joined")
    for number, name in enumerate(rng.sample(names, CUSTOMERS), start=1):
        tier = rng.choices(("standard", "silver", "gold"), (70, 22, 8))[0]
        joined = date(2024, 12, 31) - timedelta(days=rng.randrange(4 * 365))
        yield (number, name, f"customer{number}@example.com", *rng.choice(CITIES), tier, joined)


def orders() -> Table:
    """Orders, oldest first, more of them lately. The last ten customers have not bought anything yet."""
    rng = random.Random("orders")
    customers = range(1, CUSTOMERS - 9)
    eagerness = [12 if customer == REGULAR else min(rng.paretovariate(1.2), 12) for customer in customers]
    moments = sorted(
        datetime.combine(TODAY, time.max) - timedelta(seconds=round(540 * 86_400 * rng.random() ** 1.7))
        for _ in range(ORDERS)
    )

    yield ("id", "customer", "status", "placed")
    for number, placed in enumerate(moments, start=1):
        customer = rng.choices(customers, eagerness)[0]
        yield (number, customer, status(rng, (TODAY - placed.date()).days), f"{placed:%Y-%m-%dT%H:%M:%SZ}")


def status(rng: random.Random, age: int) -> str:
    """How far an order of that age, in days, has come."""
    for days, state in ((2, "placed"), (4, "paid"), (9, "shipped")):
        if age < days:
            return state
    return rng.choices(("delivered", "returned", "cancelled"), (93, 4, 3))[0]


def order_lines() -> Table:
    """What was ordered: four times in five one of the bestsellers."""
    rng = random.Random("order_lines")
    stones = read("products", Product)
    bestsellers = rng.sample([stone for stone in stones if stone.price < 6_000], BESTSELLERS)
    favour = [1 / (rank + 8) for rank in range(BESTSELLERS)]

    yield ("order", "sku", "quantity", "unit_price")
    for order in rows("orders"):
        chosen: dict[str, Product] = {}
        for _ in range(rng.choices((1, 2, 3, 4, 5), (20, 35, 25, 13, 7))[0]):
            stone = rng.choices(bestsellers, favour)[0] if rng.random() < 0.8 else rng.choice(stones)
            chosen[stone.sku] = stone
        for stone in chosen.values():
            price = stone.list_price if order["placed"] < SALE_BEGAN.isoformat() else stone.price
            yield (order["id"], stone.sku, rng.choices((1, 2, 3), (85, 13, 2))[0], price)


def reviews() -> Table:
    """What buyers say, oldest first: one review at most of a stone by a customer, after it arrived."""
    rng = random.Random("reviews")
    stones = {stone.sku: stone for stone in read("products", Product)}
    written: dict[tuple[str, int], tuple[date, int, str]] = {}
    for order in read_orders():
        for sku in arrived(order):
            when = order.placed.date() + timedelta(days=rng.randint(5, 40))
            if (sku, order.customer) not in written and when <= TODAY and rng.random() < 0.8:
                rating = rating_of(rng, stones[sku])
                written[sku, order.customer] = (when, rating, words(rng, stones[sku], rating))

    yield ("id", "product", "author", "rating", "written", "text")
    oldest_first = sorted(written.items(), key=lambda item: item[1][0])
    for number, ((sku, author), (when, rating, text)) in enumerate(oldest_first, start=1):
        yield (number, sku, author, rating, when, text)


def arrived(order: Order) -> list[str]:
    """The skus of an order that came into the customer's hands."""
    return [line.sku for line in order.lines] if order.status in ("delivered", "returned") else []


def rating_of(rng: random.Random, stone: Product) -> int:
    """Better grades please more, and nobody is predictable."""
    pleasure = 3.6 + 0.15 * CUTS.index(stone.cut) + 0.06 * CLARITIES.index(stone.clarity)
    return min(5, max(1, round(rng.gauss(pleasure, 0.9))))


def words(rng: random.Random, stone: Product, rating: int) -> str:
    """One remark or two about this stone, in the mood of the rating."""
    remarks = [sparkle(stone), tint(stone), flaws(stone), size(stone)]
    fitting = [remark for praise, remark in remarks if rating == 3 or praise == (rating > 3)]
    fitting = fitting or [NOTHING_TO_PRAISE if rating > 3 else NOTHING_TO_BLAME]
    said = ", and ".join(rng.sample(fitting, min(len(fitting), rng.choice((1, 2)))))
    return f"{rng.choice(OPENINGS[rating])} {said[0].upper()}{said[1:]}."


def sparkle(stone: Product) -> tuple[bool, str]:
    """Whether the cut is to be praised, and a remark on it."""
    return stone.cut != "Fair", SPARKLE[stone.cut]


def tint(stone: Product) -> tuple[bool, str]:
    """The same of the colour."""
    grade = COLORS.index(stone.color)
    look = "has a warm tint" if grade < 2 else "looks white once it is set" if grade < 4 else "is as clear as ice"
    return grade >= 2, f"colour {stone.color} {look}"


def flaws(stone: Product) -> tuple[bool, str]:
    """The same of the clarity."""
    grade = CLARITIES.index(stone.clarity)
    look = "shows a speck to the naked eye" if grade < 2 else "is clean to the eye" if grade < 5 else "defies the loupe"
    return grade >= 2, f"{stone.clarity} {look}"


def size(stone: Product) -> tuple[bool, str]:
    """The same of the weight."""
    look = "smaller than it sounds" if stone.carat < 0.4 else "just right" if stone.carat < 1 else "hard to miss"
    return stone.carat >= 0.4, f"{stone.carat:.2f} ct is {look}"


# Each may read those before it.
MADE_UP = {"users": users, "orders": orders, "order_lines": order_lines, "reviews": reviews}


if __name__ == "__main__":
    main()
