"""Table 3 of the GCoNet+ paper: scores by training sets and test set."""

# Training sets -> test set -> max E-measure, S-measure, max F-measure, MAE.
TABLE_3: dict[tuple[str, ...], dict[str, tuple[float, float, float, float]]] = {
    ('DUTS_class',): {
        'CoCA': (0.786, 0.691, 0.574, 0.113),
        'CoSOD3k': (0.881, 0.828, 0.807, 0.068),
        'CoSal2015': (0.917, 0.875, 0.876, 0.054),
    },
    ('COCO-9k',): {
        'CoCA': (0.798, 0.717, 0.605, 0.098),
        'CoSOD3k': (0.877, 0.819, 0.796, 0.075),
        'CoSal2015': (0.902, 0.853, 0.857, 0.073),
    },
    ('COCO-SEG',): {
        'CoCA': (0.787, 0.712, 0.602, 0.100),
        'CoSOD3k': (0.875, 0.820, 0.793, 0.075),
        'CoSal2015': (0.899, 0.853, 0.852, 0.071),
    },
    ('DUTS_class', 'COCO-9k'): {
        'CoCA': (0.808, 0.734, 0.626, 0.088),
        'CoSOD3k': (0.894, 0.839, 0.822, 0.065),
        'CoSal2015': (0.919, 0.876, 0.880, 0.058),
    },
    ('DUTS_class', 'COCO-SEG'): {
        'CoCA': (0.814, 0.738, 0.637, 0.081),
        'CoSOD3k': (0.901, 0.843, 0.834, 0.062),
        'CoSal2015': (0.924, 0.881, 0.891, 0.056),
    },
}
