"""The tables of a page as a reader sees them."""

import html
import re


def read_tables(page):
    """The text of every cell: [table][line][cell]."""
    tables = []
    for table in re.findall(r"<table>(.*?)</table>", page, re.S):
        lines = re.findall(r"<tr[^>]*>(.*?)(?=<tr|$)", table, re.S)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S) for line in lines]
        tables.append([[_text(cell) for cell in line] for line in cells])
    return tables


def _text(cell):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", cell)).split())
