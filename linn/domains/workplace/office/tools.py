"""The 27 tools by name: how to call one, and the definitions that a model is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from linn.domains.workplace.office import analytics, calendar, customers, directory, email, projects
from linn.domains.workplace.office.state import Office

READS: Mapping[str, Callable[..., Any]] = {
    "company_directory_find_email_address": directory.find_email_address,
    "email_get_email_information_by_id": email.get_email,
    "email_search_emails": email.search_emails,
    "calendar_get_event_information_by_id": calendar.get_event,
    "calendar_search_events": calendar.search_events,
    "analytics_get_visitor_information_by_id": analytics.get_visitor,
    "analytics_total_visits_count": analytics.total_visits,
    "analytics_engaged_users_count": analytics.engaged_users,
    "analytics_traffic_source_count": analytics.traffic_source,
    "analytics_get_average_session_duration": analytics.session_duration,
    "project_management_get_task_information_by_id": projects.get_task,
    "project_management_search_tasks": projects.search_tasks,
    "customer_relationship_manager_search_customers": customers.search_customers,
}
"""Tools that change nothing."""

WRITES: Mapping[str, Callable[..., Any]] = {
    "email_send_email": email.send_email,
    "email_delete_email": email.delete_email,
    "email_forward_email": email.forward_email,
    "email_reply_email": email.reply_email,
    "calendar_create_event": calendar.create_event,
    "calendar_delete_event": calendar.delete_event,
    "calendar_update_event": calendar.update_event,
    "analytics_create_plot": analytics.create_plot,
    "project_management_create_task": projects.create_task,
    "project_management_delete_task": projects.delete_task,
    "project_management_update_task": projects.update_task,
    "customer_relationship_manager_update_customer": customers.update_customer,
    "customer_relationship_manager_add_customer": customers.add_customer,
    "customer_relationship_manager_delete_customer": customers.delete_customer,
}
"""Tools that change a table."""

TOOLS: Mapping[str, Callable[..., Any]] = {**READS, **WRITES}


def call(office: Office, name: str, arguments: Mapping[str, Any]) -> Any:
    """Run one tool: its answer (text, list or object); any mistake is an answer in words."""
    tool = TOOLS.get(name)
    if tool is None:
        return f"Error executing tool '{name[:100]}': there is no such tool"
    try:
        return tool(office, **arguments)
    except Exception as error:  # whatever a model's arguments break is for the model to read
        return f"Error executing tool '{name}': {str(error)[:300]}"
