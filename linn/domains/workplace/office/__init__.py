"""The office behind `workplace`: tables, tools, where the tables come from, and the tasks of its
full level.
"""
