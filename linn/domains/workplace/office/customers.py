"""The customer relationship tools."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.reading import contains, page_of
from linn.domains.workplace.office.state import CUSTOMER_COLUMNS, PRODUCTS, STATUSES, Office

_FIELDS = (
    *(
        "customer_name",
        "assigned_to_email",
        "customer_email",
        "customer_phone",
        "last_contact_date",
        "product_interest",
        "status",
        "notes",
    ),
    "follow_up_by",
)
"""What can be changed, in the order in which the reference names it."""


def search_customers(office: Office, /, page: int = 1, page_size: int = 5, **wanted: Any) -> Any:
    """Customers that match every argument given."""
    matched = ("customer_name", "customer_email", "product_interest", "status", "assigned_to_email")
    bounds = (
        "last_contact_date_min",
        "last_contact_date_max",
        "follow_up_by_min",
        "follow_up_by_max",
    )
    if unknown := set(wanted) - {*matched, *bounds}:
        raise TypeError(f"unexpected argument {min(unknown)!r}")
    if not any(wanted.values()):
        return "No search parameters provided. Please provide at least one parameter."
    found = office.customers.records()
    for column in matched:
        if value := wanted.get(column):
            match = contains(value)
            found = [customer for customer in found if match(customer[column])]

    for bound in bounds:
        column, side = bound[:-4], bound[-3:]
        if value := wanted.get(bound):
            found = [
                c
                for c in found
                if c[column] is not None
                and (c[column] >= value if side == "min" else c[column] <= value)
            ]

    return page_of("customers", found, page, page_size)


def update_customer(
    office: Office, /, customer_id: Any = None, field: Any = None, new_value: Any = None
) -> str:
    """Change one field of a customer."""
    if not customer_id or not field or not new_value:
        return "Customer ID, field, or new value not provided."
    if field == "status" and new_value not in STATUSES:
        return f"Status not valid. Please choose from: {', '.join(map(repr, STATUSES))}"
    if field == "product_interest" and new_value not in PRODUCTS:
        return f"Product interest not valid. Please choose from: {', '.join(map(repr, PRODUCTS))}"
    value = new_value.lower() if field in ("customer_email", "assigned_to_email") else new_value
    if not office.customers.has(customer_id):
        return "Customer not found."
    if field not in CUSTOMER_COLUMNS:
        return f"Field not valid. Please choose from: {', '.join(map(repr, _FIELDS))}"
    office.customers.set(customer_id, field, value)

    return "Customer updated successfully."


def add_customer(
    office: Office,
    /,
    customer_name: Any = None,
    assigned_to_email: Any = None,
    status: Any = None,
    customer_email: Any = None,
    customer_phone: Any = None,
    last_contact_date: Any = None,
    product_interest: Any = None,
    notes: Any = "",
    follow_up_by: Any = None,
) -> str:
    """A new customer; answers the id."""
    if not all([customer_name, assigned_to_email, status]):
        return "Please provide all required fields: customer_name, assigned_to_email, status."
    email = customer_email.lower() if customer_email else customer_email
    key = office.customers.next_id(8)
    rest = (customer_phone, last_contact_date, product_interest, status, follow_up_by, notes)
    office.customers.add(
        dict(
            zip(
                CUSTOMER_COLUMNS,
                (key, assigned_to_email.lower(), customer_name, email, *rest),
                strict=True,
            )
        )
    )

    return key


def delete_customer(office: Office, /, customer_id: Any = None) -> str:
    """Remove a customer."""
    if not customer_id:
        return "Customer ID not provided."
    if not office.customers.has(customer_id):
        return "Customer not found."
    office.customers.drop(customer_id)
    return "Customer deleted successfully."
