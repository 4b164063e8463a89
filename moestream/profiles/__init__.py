"""Profiles: which experts a workload used, kept so that the next run of its kind starts warm.

Owns the counting, the mixing, the questions that can be asked of a profile, and the file format.
Numbers in, numbers out: where files lie and what is printed are others' affairs, and so is what
residency does with the rates.
"""

from moestream.profiles.counts import UseCounter
from moestream.profiles.files import read_profile, require_place, write_profile
from moestream.profiles.fingerprint import Fingerprint
from moestream.profiles.profile import PROFILE_HALF_LIFE, Profile, mix

__all__ = [
    "PROFILE_HALF_LIFE",
    "Fingerprint",
    "Profile",
    "UseCounter",
    "mix",
    "read_profile",
    "require_place",
    "write_profile",
]
