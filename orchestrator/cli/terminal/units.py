"""Numbers of things as people read them."""


def memory(nbytes: int) -> str:
    """`nbytes` in the unit that leaves at most four digits, as `1.7 GiB`."""
    if nbytes < 1 << 10:
        return f"{nbytes} B"
    amount = float(nbytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1000 or unit == "GiB":
            break
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"


def images(number: int) -> str:
    """`number` of images."""
    return f"{number} image{'' if number == 1 else 's'}"
