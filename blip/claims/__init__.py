"""What this project claims, and whether it is so: measured from run folders, and by small checks of the library."""

from blip.claims.claim import Claim, Claims, load_claims
from blip.claims.judging import judge

__all__ = ["Claim", "Claims", "judge", "load_claims"]
