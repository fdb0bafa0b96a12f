"""Requests about customers."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.state import PRODUCTS, STATUSES
from linn.domains.workplace.office.table import Record
from linn.domains.workplace.tasks.desk import Desk, Unfit, first_name, only, several

_FIRST, _LAST = (
    "Abel Bettina Cyrus Delia Edgar Frida Gunnar Hanna".split(),
    "Arden Bloom Carver Dunne Erwin Falk Gale Hollis".split(),
)
_NOTES = (
    "Wants a visit in spring.",
    "Prefers to be called.",
    "Asked for a discount.",
    "Met at the fair in Graz.",
    "Pays by invoice.",
)


def customers_of(desk: Desk, person: str, **wanted: Any) -> list[Record]:
    """A colleague's customers, by address."""
    return desk.search(
        "customer_relationship_manager_search_customers",
        assigned_to_email=desk.address(person),
        **wanted,
    )


def named(desk: Desk) -> Record:
    """A customer, looked up by name."""
    name = desk.pick(desk.office.customers.records())["customer_name"]
    return only(desk.search("customer_relationship_manager_search_customers", customer_name=name))


def update(desk: Desk, customer: Record, field: str, value: str) -> None:
    """Change one field of a customer."""
    desk.do(
        "customer_relationship_manager_update_customer",
        customer_id=customer["customer_id"],
        field=field,
        new_value=value,
    )


def add(desk: Desk) -> str:
    """A new customer with some particulars."""
    person, first, last = desk.pick(desk.people), desk.pick(_FIRST), desk.pick(_LAST)
    status, product, day = desk.pick(STATUSES[::-1]), desk.pick(PRODUCTS), desk.workday()
    phone = f"{desk.rng.randint(100, 999)}-{desk.rng.randint(1000, 9999)}"
    note, mail = (
        desk.pick(_NOTES),
        f"{first}.{last}@{desk.pick(('fern', 'moss', 'birch', 'alder'))}.example".lower(),
    )
    particulars = {
        "product_interest": (product, f"interested in {product.lower()}"),
        "customer_email": (mail, f"email {mail}"),
        "customer_phone": (phone, f"phone {phone}"),
        "follow_up_by": (str(day), f"to be followed up by {desk.day_name(day)}"),
        "notes": (note, f"with the note '{note}'"),
    }
    chosen = desk.rng.sample(list(particulars), desk.rng.randint(0, 4))
    given = {key: particulars[key][0] for key in chosen}
    desk.do(
        "customer_relationship_manager_add_customer",
        customer_name=f"{first} {last}",
        assigned_to_email=desk.address(person),
        status=status,
        **given,
    )
    wording = ", ".join([f"status {status}", *(particulars[key][1] for key in chosen)])

    return desk.pick(
        (
            f"add a new customer {first} {last}, in the care of {first_name(person)}, {wording}",
            f"enter {first} {last} as a customer of {first_name(person)} into the CRM: {wording}",
        )
    )


def change(desk: Desk) -> str:
    """One field of a named customer."""
    customer = named(desk)
    name, day = customer["customer_name"], desk.workday()
    status = desk.pick([value for value in STATUSES if value != customer["status"]])
    product = desk.pick([value for value in PRODUCTS if value != customer["product_interest"]])
    phone, note = f"{desk.rng.randint(100, 999)}-{desk.rng.randint(1000, 9999)}", desk.pick(_NOTES)
    field, value, wording = desk.pick(
        (
            (
                "status",
                status,
                desk.pick(
                    (
                        f"set the status of the customer {name} to {status}",
                        f"move the customer {name} to {status}",
                    )
                ),
            ),
            (
                "product_interest",
                product,
                f"note that the customer {name} is now interested in {product.lower()}",
            ),
            ("customer_phone", phone, f"change the phone number of the customer {name} to {phone}"),
            ("notes", note, f"replace the notes on the customer {name} by '{note}'"),
            (
                "follow_up_by",
                str(day),
                f"set the follow-up date of the customer {name} to {desk.day_name(day)}",
            ),
        )
    )
    update(desk, customer, field, value)

    return wording


def delete(desk: Desk) -> str:
    """A named customer out of the CRM."""
    customer = named(desk)
    desk.do("customer_relationship_manager_delete_customer", customer_id=customer["customer_id"])
    return f"delete the customer {customer['customer_name']} from the CRM"


def hand_over(desk: Desk) -> str:
    """A colleague's customers of one kind to another colleague."""
    (person, other), status = desk.two_people(), desk.pick(STATUSES)
    matches = several(customers_of(desk, person, status=status))
    address = desk.address(other)
    for customer in matches:
        update(desk, customer, "assigned_to_email", address)

    return desk.pick(
        (
            f"reassign all of {first_name(person)}'s customers with the status {status} to "
            f"{first_name(other)}",
            f"let {first_name(other)} take over every customer of {first_name(person)} that has "
            f"the status {status}",
        )
    )


def delete_all(desk: Desk) -> str:
    """A colleague's customers of one status and product."""
    person, status, product = desk.pick(desk.people), desk.pick(STATUSES), desk.pick(PRODUCTS)
    if desk.rng.random() < 0.5:
        matches, of = (
            several(customers_of(desk, person, status=status)),
            f"have the status {status}",
        )
    else:
        matches, of = (
            several(customers_of(desk, person, product_interest=product)),
            f"are interested in {product.lower()}",
        )

    for customer in matches:
        desk.do(
            "customer_relationship_manager_delete_customer", customer_id=customer["customer_id"]
        )

    return f"delete all customers of {first_name(person)} that {of} from the CRM"


def stale(desk: Desk) -> str:
    """Customers of one status and product, not spoken to since a day, get another status."""
    (old, new), product, day = desk.rng.sample(STATUSES, 2), desk.pick(PRODUCTS), desk.day(-50, -7)
    matches = desk.search(
        "customer_relationship_manager_search_customers",
        product_interest=product,
        status=old,
        last_contact_date_max=str(day),
    )
    for customer in several(matches):
        update(desk, customer, "status", new)

    return (
        f"set every customer with the status {old} who is interested in {product.lower()} and was "
        "last contacted before "
        f"{desk.day_name(day)} to {new}"
    )


def follow_up(desk: Desk) -> str:
    """One follow-up date for a colleague's customers of one status."""
    person, status, day = desk.pick(desk.people), desk.pick(STATUSES), desk.workday()
    for customer in several(customers_of(desk, person, status=status)):
        update(desk, customer, "follow_up_by", str(day))
    return (
        f"set the follow-up date of all of {first_name(person)}'s customers with the status "
        f"{status} to {desk.day_name(day)}"
    )


def has_status(desk: Desk) -> tuple[str, bool]:
    """Whether a named customer has a status."""
    customer = named(desk)
    status = customer["status"] if desk.rng.random() < 0.4 else desk.pick(STATUSES)
    return f"the customer {customer['customer_name']} has the status {status}", customer[
        "status"
    ] == status


def many_customers(desk: Desk) -> tuple[str, bool]:
    """Whether a colleague has more customers of a status than so many."""
    person, status, bar = desk.pick(desk.people), desk.pick(STATUSES), desk.rng.randint(0, 3)
    matches = customers_of(desk, person, status=status)
    if len(matches) > 12:
        raise Unfit("too many to count")
    return (
        f"{first_name(person)} has more than {bar} customer{'s' * (bar != 1)} with the status "
        f"{status}",
        len(matches) > bar,
    )


CLAUSES = (add, change, change, delete, hand_over, delete_all, stale, follow_up)
CONDITIONS = (has_status, many_customers)
