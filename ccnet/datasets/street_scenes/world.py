"""World coordinates in metres: x right of the road's middle, y up from the road, z ahead."""

import math
from collections.abc import Sequence

Point = tuple[float, float, float]
Pair = tuple[float, float]

# The classes of `ccnet.classes.CAMVID`
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

NEAR, FAR = 1.5, 150.0  # range of z that the street spans
KERB = 0.12  # y of the pavement


class Placement:
    """Position and heading of an object on the road; its own axes are across, up and along.

    Args:
        x: of the object's origin.
        z: of the object's origin.
        heading: angle in radians from the z axis to "along", positive towards x.
    """

    def __init__(self, x: float, z: float, heading: float) -> None:
        self.x, self.z = x, z
        self.sin, self.cos = math.sin(heading), math.cos(heading)

    def at(self, across: float, up: float, along: float) -> Point:
        """Converts object coordinates to world coordinates."""
        x = self.x + across * self.cos + along * self.sin
        z = self.z - across * self.sin + along * self.cos
        return x, up, z

    def across(self, metres: float) -> Point:
        """Returns the world vector of this length that points across the object."""
        x, _, z = self.at(metres, 0, 0)
        return x - self.x, 0, z - self.z


def dot(a: Point, b: Point) -> float:
    """Computes the dot product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit_normal(face: Sequence[Point]) -> Point:
    """Computes the unit normal of a face; (0, 0, 0) if its first corners are collinear."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = face[:3]
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    normal = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    size = math.sqrt(dot(normal, normal)) or 1.0
    return normal[0] / size, normal[1] / size, normal[2] / size
