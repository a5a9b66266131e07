"""Tables of two runs side by side; what a run says."""

from dedup.runs.directory import Run
from dedup.storage.tables import read_table

TABLES = (
    "metadata", "rejected", "representatives", "exact", "assignments", "candidates", "neighbors", "edges", "refused", "groups",
    "templates", "template_counts", "scenes", "scene_counts", "edits", "edit_counts", "exclusions", "manifest", "duplicates", "excluded", "captions", "statistics", "histogram", "candidate_counts", "targets", "target_captions",
)  # fmt: skip


def table(run_dir, name):
    return read_table(Run(str(run_dir)).table(name))


def rows_of(run_dir, name):
    """Rows as texts, in an order that does not depend on files."""
    return sorted(map(repr, table(run_dir, name).to_pylist()))


def assert_same_tables(one, other, names=TABLES):
    for name in names:
        left, right = rows_of(one, name), rows_of(other, name)
        assert len(left) == len(right), name
        assert left == right, name


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def progress(self, progress):
        pass
