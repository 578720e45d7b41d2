"""The one error that speaks to people."""


class VwsdError(Exception):
    """What went wrong, where, and what to do about it: one clear sentence each.

    >>> print(VwsdError("gold file has 3 lines, data file 4", where="x.gold.txt", remedy="Fetch the files again."))
    gold file has 3 lines, data file 4 [x.gold.txt]. Fetch the files again.
    """

    def __init__(self, what: str, where: object = "", remedy: str = ""):
        self.what, self.where, self.remedy = str(what).rstrip("."), str(where), str(remedy)
        super().__init__(self.what)

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.what}{place}." + (f" {self.remedy}" if self.remedy else "")

    def __reduce__(self):
        return type(self), (self.what, self.where, self.remedy)
