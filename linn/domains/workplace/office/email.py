"""The email tools."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.reading import moment, page_of
from linn.domains.workplace.office.state import EMAIL_COLUMNS, NOW, Office


def get_email(office: Office, /, email_id: Any = None, field: Any = None) -> Any:
    """One field of an email."""
    if not email_id:
        return "Email ID not provided."
    if not field:
        return "Field not provided."
    email = office.emails.get(email_id)
    if email is None:
        return "Email not found."

    return (
        {field: email[field]}
        if field in email
        else f"Field '{field}' not found. Available fields: {', '.join(EMAIL_COLUMNS)}"
    )


def search_emails(
    office: Office,
    /,
    query: str = "",
    date_min: Any = None,
    date_max: Any = None,
    page: int = 1,
    page_size: int = 5,
) -> Any:
    """Emails that hold every word of the query, newest first."""
    words = set(query.lower().split())
    matches = []

    for email in office.emails.records():
        text = f"{email['subject']} {email['body']} {email['sender/recipient']}".lower()
        if all(word in text for word in words):
            matches.append(email)

    matches.sort(key=lambda email: moment(email["sent_datetime"]), reverse=True)
    if date_min:
        matches = [
            email
            for email in matches
            if moment(email["sent_datetime"]).date() >= moment(date_min).date()
        ]

    if date_max:
        matches = [
            email
            for email in matches
            if moment(email["sent_datetime"]).date() <= moment(date_max).date()
        ]

    return page_of("emails", matches, page, page_size)


def send_email(
    office: Office, /, recipient: Any = None, subject: Any = None, body: Any = None
) -> str:
    """A new email in the outbox."""
    if not recipient or not subject or not body:
        return "Recipient, subject, or body not provided."
    if "@" not in recipient or "." not in recipient:
        return "Invalid recipient email address."
    key = office.emails.next_id(0) if office.emails.rows else "1"
    office.emails.add(
        dict(
            zip(EMAIL_COLUMNS, (key, "outbox", recipient.lower(), subject, NOW, body), strict=True)
        )
    )

    return "Email sent successfully."


def delete_email(office: Office, /, email_id: Any = None) -> str:
    """Remove an email."""
    if not email_id:
        return "Email ID not provided."
    if not office.emails.has(email_id):
        return "Email not found."
    office.emails.drop(email_id)
    return "Email deleted successfully."


def forward_email(office: Office, /, email_id: Any = None, recipient: Any = None) -> str:
    """Send an email on, `FW: ` before its subject."""
    if not email_id or not recipient:
        return "Email ID or recipient not provided."
    if "@" not in recipient or "." not in recipient:
        return "Invalid recipient email address."
    email = office.emails.get(email_id)
    if email is None:
        return "Email not found."
    answer = send_email(office, recipient.lower(), f"FW: {email['subject']}", email["body"])
    return answer if "Invalid" in answer else "Email forwarded successfully."


def reply_email(office: Office, /, email_id: Any = None, body: Any = None) -> str:
    """Answer an email, `RE: ` before its subject."""
    if not email_id or not body:
        return "Email ID or body not provided."
    email = office.emails.get(email_id)
    if email is None:
        return "Email not found."
    answer = send_email(office, email["sender/recipient"], f"RE: {email['subject']}", body)
    return answer if "Invalid" in answer else "Email replied successfully."
