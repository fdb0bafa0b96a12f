"""Requests about emails."""

from __future__ import annotations

from linn.domains.workplace.office.generate import TOPICS
from linn.domains.workplace.office.table import Record
from linn.domains.workplace.tasks.desk import Desk, Unfit, extreme, first_name, several

_OPENINGS = (
    "News on the",
    "Please check the",
    "Decision on the",
    "Notes about the",
    "Next week: the",
    "Help wanted with the",
)
_BODIES = (
    "I will send you the figures tomorrow.",
    "Thanks for the update - let us talk on Monday.",
    "Could you please have a look?",
    "This is now settled, no need to do more.",
    "I am out of office until Wednesday.",
    "Well done, please go on like this.",
    "We have to wait for the numbers first.",
    "Please bring your laptop.",
    "Sorry, I can not make it.",
    "The new plan is on the shared drive.",
)


def letter(desk: Desk) -> tuple[str, str]:
    """A subject and a body to write."""
    return f"{desk.pick(_OPENINGS)} {desk.pick(TOPICS)}", desk.pick(_BODIES)


def saying(desk: Desk, subject: str, body: str) -> str:
    """How a request names what to write."""
    return desk.pick(
        (
            f"with the subject '{subject}' and the body '{body}'",
            f"with subject '{subject}', saying '{body}'",
            f"(subject: '{subject}', body: '{body}')",
        )
    )


def write(desk: Desk, address: str) -> str:
    """Send an email to an address; how the request names its words."""
    subject, body = letter(desk)
    desk.do(
        "email_send_email",
        recipient=address,
        subject=subject,
        body=body,
    )
    return saying(desk, subject, body)


def from_person(desk: Desk, person: str, more: str = "", **dates: str) -> list[Record]:
    """What a colleague wrote to me, searched by first name and further words."""
    matches = desk.search(
        "email_search_emails", query=f"{first_name(person)} {more}".strip(), **dates
    )
    return [
        email
        for email in matches
        if email["sender/recipient"] == person and email["inbox/outbox"] == "inbox"
    ]


def latest(desk: Desk) -> tuple[Record, str]:
    """A colleague's latest email, of all or about something: the email, in words."""
    person = desk.pick(desk.people)
    if desk.rng.random() < 0.5:
        return extreme(
            from_person(desk, person), "sent_datetime", last=True
        ), f"{first_name(person)}'s latest email"

    topic = desk.pick(TOPICS)
    matches = [
        email
        for email in from_person(desk, person, topic)
        if email["subject"].endswith(f" the {topic}")
    ]

    return extreme(matches, "sent_datetime", last=True), desk.pick(
        (
            f"{first_name(person)}'s last email about the {topic}",
            f"the most recent email that {first_name(person)} sent me about the {topic}",
        )
    )


def send(desk: Desk) -> str:
    """A new email to a colleague."""
    person = desk.pick(desk.people)
    wording = write(desk, desk.address(person))
    return desk.pick(
        (
            f"send an email to {first_name(person)} {wording}",
            f"write to {first_name(person)} {wording}",
        )
    )


def reply(desk: Desk) -> str:
    """Answer a colleague's latest email."""
    email, wording = latest(desk)
    body = desk.pick(_BODIES)
    desk.do("email_reply_email", email_id=email["email_id"], body=body)
    return desk.pick((f"reply to {wording} with '{body}'", f"answer {wording}: '{body}'"))


def forward(desk: Desk) -> str:
    """Send a colleague's latest email on to another."""
    email, wording = latest(desk)
    other = desk.pick([person for person in desk.people if person != email["sender/recipient"]])
    desk.do("email_forward_email", email_id=email["email_id"], recipient=desk.address(other))
    return desk.pick(
        (f"forward {wording} to {first_name(other)}", f"pass {wording} on to {first_name(other)}")
    )


def delete(desk: Desk) -> str:
    """Delete a colleague's latest email."""
    email, wording = latest(desk)
    desk.do("email_delete_email", email_id=email["email_id"])
    return desk.pick((f"delete {wording}", f"get rid of {wording}"))


def delete_since(desk: Desk) -> str:
    """Delete all that a colleague wrote since a day."""
    person, day = desk.pick(desk.people), desk.day(-25, -2)
    matches = several(from_person(desk, person, date_min=str(day)))
    for email in matches:
        desk.do("email_delete_email", email_id=email["email_id"])
    when = desk.day_name(day)

    return desk.pick(
        (
            f"delete every email that {first_name(person)} has sent me since {when} (that day "
            "included)",
            f"delete all emails from {first_name(person)} that came on or after {when}",
        )
    )


def delete_topic(desk: Desk) -> str:
    """Delete all that came about one topic within some days."""
    topic, day = desk.pick(TOPICS), desk.day(-40, -5)
    matches = desk.search("email_search_emails", query=topic, date_min=str(day))
    mine = [
        email
        for email in matches
        if email["inbox/outbox"] == "inbox" and email["subject"].endswith(f" the {topic}")
    ]
    for email in several(mine):
        desk.do("email_delete_email", email_id=email["email_id"])

    return (
        f"clear my inbox of everything about the {topic} that arrived on {desk.day_name(day)} or "
        "later"
    )


def write_to_sender(desk: Desk) -> str:
    """Write to whoever sent an email known by its id."""
    email = desk.pick(
        [record for record in desk.office.emails.records() if record["inbox/outbox"] == "inbox"]
    )
    answer = desk.look(
        "email_get_email_information_by_id", email_id=email["email_id"], field="sender/recipient"
    )
    wording = write(desk, answer["sender/recipient"])

    return (
        f"find out who sent the email with the id {email['email_id']} and send them a new email "
        f"{wording}"
    )


def got_mail(desk: Desk) -> tuple[str, bool]:
    """Whether a colleague wrote since a day."""
    person, day = desk.pick(desk.people), desk.day(-9, -1)
    return (
        f"{first_name(person)} has sent me any email since {desk.day_name(day)} (that day "
        "included)",
        bool(from_person(desk, person, date_min=str(day))),
    )


def email_is_about(desk: Desk) -> tuple[str, bool]:
    """Whether an email known by its id is about a topic."""
    email = desk.pick(desk.office.emails.records())
    subject = desk.look(
        "email_get_email_information_by_id", email_id=email["email_id"], field="subject"
    )["subject"]
    own = [topic for topic in TOPICS if subject.endswith(f" the {topic}")]
    if not own:
        raise Unfit("an email of another making")
    topic = own[0] if desk.rng.random() < 0.5 else desk.pick(TOPICS)

    return (
        f"the subject of the email with the id {email['email_id']} mentions the {topic}",
        subject.endswith(f" the {topic}"),
    )


CLAUSES = (send, reply, forward, delete, delete_since, delete_topic, write_to_sender)
CONDITIONS = (got_mail, email_is_about)
