"""What this project claims, and whether it is so: measured from run folders, and by small checks of the library."""

from pathlib import Path

from blip.claims.claim import Claim, Claims, load_claims
from blip.claims.judging import judge

PUBLISHED = Path(__file__).with_name("claims.yaml")
"""The claims that come with the package."""

__all__ = ["PUBLISHED", "Claim", "Claims", "judge", "load_claims"]
