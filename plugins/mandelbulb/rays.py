"""Rays that march to the surface of a Mandelbulb variation by its distance estimate, and the colours there.

The angles' multiples are powers of complex numbers, and powers of r are products, so only the logarithm of the distance
estimate depends on the mathematics library.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, UInt8
from numba import uint64

from formulavision.rendering import kernel

__all__ = ["draw_rays"]

_ESCAPES, _HIT, _FAR, _STEPS = 4.0, 0.001, 10.0, 1000
"""Radius beyond which an orbit is not followed; of rays: distance from the surface that counts as a hit, length of
those that miss, largest number of steps."""
_LIT_HIT, _LIT_FAR, _LIT_STEPS = 0.0001, 10_000.0, 10_000
"""The same of rays from the surface to the light."""
_AWAY, _NUDGE, _APART = 2.5, 1e-5, 0.001
"""Distance of the camera from the origin; of the start of rays to the light from the surface; of points for slopes."""
_LIGHT = (-10.0, 10.0, 10.0)
_AMBIENT, _DIFFUSE, _GLOW = 0.3, 0.9, 0.2


@kernel
def _power(a: float, b: float, n: int) -> tuple[float, float]:
    """(a + i b)^n, n >= 1."""
    real, imaginary = a, b
    bit = 1
    while 2 * bit <= n:
        bit *= 2
    while bit > 1:
        bit //= 2
        real, imaginary = real * real - imaginary * imaginary, 2 * real * imaginary
        if n & bit:
            real, imaginary = real * a - imaginary * b, real * b + imaginary * a
    return real, imaginary


@kernel(inline="always")
def _coordinate(bits: int, phi: tuple[float, float], theta: tuple[float, float]) -> float:
    """A coordinate of the new direction, by three bits of the rule: sine or cosine, theta or phi, the sign."""
    angle = theta if bits & 2 else phi
    value = angle[1] if bits & 4 else angle[0]
    return -value if bits & 1 else value


@kernel(error_model="numpy")
def _estimate(
    px: float, py: float, pz: float, power: int, rule: int, iterations: int
) -> tuple[float, float, float, float]:
    """Estimate the distance of a point from the surface.

    Returns:
        The estimate, and the traps of the orbit: the least of |z|, of (|x| + |y| + |z|) / 1.5, and of the radius.
    """
    x, y, z, slope, r = px, py, pz, 1.0, 0.0
    near_plane, near_octahedron, near_origin = np.inf, np.inf, np.inf
    for _ in range(iterations):
        flat = math.sqrt(x * x + y * y)
        r = math.sqrt(x * x + y * y + z * z)
        if r > _ESCAPES:
            break
        phi = _power(x / flat, y / flat, power) if flat > 0 else (1.0, 0.0)
        theta = _power(z / r, flat / r, power) if r > 0 else (1.0, 0.0)
        grown, _none = _power(r, 0.0, power)
        slope = grown * power * slope + 1
        x = grown * _coordinate(rule >> 6, phi, theta) + px
        y = grown * _coordinate(rule >> 3, phi, theta) + py
        z = grown * _coordinate(rule, phi, theta) + pz
        near_plane = min(near_plane, abs(z))
        near_octahedron = min(near_octahedron, (abs(x) + abs(y) + abs(z)) / 1.5)
        near_origin = min(near_origin, math.sqrt(x * x + y * y + z * z))
    distance = 0.5 * math.log(r) * r / slope if r > 0 else 0.0
    return distance, near_plane, near_octahedron, near_origin


@kernel
def _march(
    start: tuple[float, float, float],
    ray: tuple[float, float, float],
    shape: tuple[int, int, int],
    limits: tuple[int, float, float],
) -> tuple[float, float, float, float]:
    """Follow a ray to the surface.

    Args:
        start, ray: where it begins and its direction, of length 1.
        shape: power, rule, iterations.
        limits: largest number of steps, distance that counts as a hit, length of rays that miss.

    Returns:
        The length of the ray, and the traps at its end.
    """
    length, near_plane, near_octahedron, near_origin = 0.0, 0.0, 0.0, 0.0
    steps, hit, far = limits
    for _ in range(steps):
        x, y, z = start[0] + length * ray[0], start[1] + length * ray[1], start[2] + length * ray[2]
        distance, near_plane, near_octahedron, near_origin = _estimate(x, y, z, *shape)
        if not distance > hit:
            break
        length += distance
        if length >= far:
            break
    return length, near_plane, near_octahedron, near_origin


@kernel
def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length) if length > 0 else (0.0, 0.0, 0.0)


@kernel
def _slope(x: float, y: float, z: float, shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Direction in which the distance grows fastest."""
    return _unit(
        _estimate(x + _APART, y, z, *shape)[0] - _estimate(x - _APART, y, z, *shape)[0],
        _estimate(x, y + _APART, z, *shape)[0] - _estimate(x, y - _APART, z, *shape)[0],
        _estimate(x, y, z + _APART, *shape)[0] - _estimate(x, y, z - _APART, *shape)[0],
    )


@kernel
def draw_rays(
    latitude: float,
    longitude: float,
    colors: Float64[np.ndarray, "3 3"],
    power: int,
    rule: int,
    iterations: int,
    image: UInt8[np.ndarray, "size size 3"],
    hits: UInt8[np.ndarray, "size size"],
) -> None:
    """Draw a Mandelbulb variation, white where no ray meets it.

    Args:
        latitude, longitude: of the camera, in radians.
        colors: that of each trap, from 0 to 1.
        power, rule: the variation.
        iterations: largest number of iterations of an orbit.
        image: is filled.
        hits: is filled: 1 where a ray meets the variation, else 0.
    """
    size, shape = len(image), (power, rule, iterations)
    sin_a, cos_a, sin_b, cos_b = math.sin(latitude), math.cos(latitude), math.sin(longitude), math.cos(longitude)
    ahead = (sin_b * cos_a, -cos_b * cos_a, -sin_a)
    up = (sin_b * sin_a, -cos_b * sin_a, cos_a)
    side = (
        ahead[1] * up[2] - ahead[2] * up[1],
        ahead[2] * up[0] - ahead[0] * up[2],
        ahead[0] * up[1] - ahead[1] * up[0],
    )
    camera = (-_AWAY * ahead[0], -_AWAY * ahead[1], -_AWAY * ahead[2])
    for row in range(uint64(size)):
        v = 0.5 - (row + 0.5) / size
        for column in range(uint64(size)):
            u = (column + 0.5) / size - 0.5
            ray = _unit(
                side[0] * u + up[0] * v + ahead[0],
                side[1] * u + up[1] * v + ahead[1],
                side[2] * u + up[2] * v + ahead[2],
            )
            length, plane, octahedron, origin = _march(camera, ray, shape, (_STEPS, _HIT, _FAR))
            hits[row, column] = length < _FAR
            if length >= _FAR:
                image[row, column] = 255
                continue
            x, y, z = camera[0] + length * ray[0], camera[1] + length * ray[1], camera[2] + length * ray[2]
            outwards = _slope(x, y, z, shape)
            light = _unit(_LIGHT[0] - x, _LIGHT[1] - y, _LIGHT[2] - z)
            facing = -(light[0] * outwards[0] + light[1] * outwards[1] + light[2] * outwards[2])
            start = (x + _NUDGE * outwards[0], y + _NUDGE * outwards[1], z + _NUDGE * outwards[2])
            to_light = _march(start, light, shape, (_LIT_STEPS, _LIT_HIT, _LIT_FAR))[0]
            glow = _GLOW if to_light >= _LIT_FAR else 0.0
            shade = (_DIFFUSE * max(facing, 0.0) + _AMBIENT) * (x * x + y * y + z * z)
            first, second, third = min(plane, 1.0), min(octahedron, 1.0) ** 10, min(origin, 1.0) ** 10
            for channel in range(3):
                level = colors[0, channel] * first + colors[1, channel] * second + colors[2, channel] * third
                image[row, column, channel] = int(255 * min(level * shade + glow, 1.0) + 0.5)
