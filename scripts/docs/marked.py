"""A table of a page of docs that a script writes, between two marks."""

from collections.abc import Iterable


def put_table(page: str, begin: str, end: str, rows: Iterable[Iterable[str]]) -> str:
    """The page with the rows, the first of which has the names, as the table between the marks."""
    head, *others = map(list, rows)
    lines = [head, ["---"] * len(head), *others]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"
