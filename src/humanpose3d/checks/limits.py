"""Every threshold of the doctor, with its reason. The same for all corpora.

Distances of keypoints are in person sizes (the longer side of the keypoints' box), so that they mean the same at any
resolution; 0.03 is 5 cm on a standing adult. Reference figures: the packaged networks miss labels by 0.03 to 0.06 with
wrists at 0.08, of sound sets at most 8 % of a group's people come out with left and right exchanged, and the median
offset of a group is below 0.011; yolov8n-pose misses real Human3.6M labels by 0.02 to 0.04.
"""

from __future__ import annotations

# ------------------------------------------------------------------------------------------------ what is compared
KEYPOINT_SCORE = 0.3  # below it an estimator guesses; its own cut for drawing is 0.5
LEAST_JOINTS = 4  # comparable limbs of a sample, or it says nothing
MISS_AT_MOST = 0.5  # person sizes one joint can count: a lost wrist must not outweigh a body

# ---------------------------------------------------------------------------------------------- how sure we must be
LEAST_VOTES = 4.0  # samples for a fault above those against it, before a group is accused
LEAST_AGREEMENT = 0.7  # share of a group's voting samples that must speak for the fault: clean groups stay below 0.1
ALL_AGREE = 0.85  # the same before the whole corpus is accused: three cameras of four are not all of them
INDEPENDENT_OF_TAKE = 6  # samples of one take and camera that count as independent of one another, at most
MAJORITY = 1.5  # cells outside a group for each inside, before they alone say what is sound
LEAST_SIGMAS = 4.5  # a group's step against the others', in its own uncertainty

# -------------------------------------------------------------------------------------------------- units and bones
UNITS_FACTOR = 5.0  # typical bone against a usual one, either way: no body is five times another
BODY_BONE_M, HAND_BONE_M = 0.25, 0.035  # usual median bone of a body's and of a hand's joint set
NOISE_M = 0.008  # median change of limb bones: rigid skeletons change by 0, real 3DHP by 0.001, 5 cm noise by 0.05
NOISE_TIMES = 3.0  # the same against the corpus's sounder groups, where people are not told apart or bones stretch
BONES_SCALE = 0.008  # share by which a group's bones differ from the same person's elsewhere; rigid ones do not
# Distances between points of one body, metres, from small adults to tall ones, whatever corpus's idea of the points;
# what lies outside is no such pair. Bent spines shorten pelvis to head by a third.
HUMAN_RANGES_M: dict[tuple[str, str], tuple[float, float]] = {
    ("left_hip", "left_knee"): (0.25, 0.62),
    ("right_hip", "right_knee"): (0.25, 0.62),
    ("left_knee", "left_ankle"): (0.25, 0.60),
    ("right_knee", "right_ankle"): (0.25, 0.60),
    ("left_shoulder", "left_elbow"): (0.17, 0.45),
    ("right_shoulder", "right_elbow"): (0.17, 0.45),
    ("left_elbow", "left_wrist"): (0.15, 0.40),
    ("right_elbow", "right_wrist"): (0.15, 0.40),
    ("left_hip", "right_hip"): (0.06, 0.45),
    ("left_shoulder", "right_shoulder"): (0.15, 0.58),
    ("pelvis", "left_hip"): (0.03, 0.28),
    ("pelvis", "right_hip"): (0.03, 0.28),
    ("neck_base", "left_shoulder"): (0.06, 0.34),
    ("neck_base", "right_shoulder"): (0.06, 0.34),
    ("upper_neck", "left_shoulder"): (0.08, 0.42),
    ("upper_neck", "right_shoulder"): (0.08, 0.42),
    ("pelvis", "spine"): (0.05, 0.42),
    ("pelvis", "neck_base"): (0.30, 0.75),
    ("pelvis", "mpi_spine4"): (0.28, 0.72),
    ("pelvis", "mpi_spine2"): (0.10, 0.55),
    ("pelvis", "head_top"): (0.40, 1.15),
    ("pelvis", "h36m_head"): (0.38, 1.10),
    ("pelvis", "head_centre"): (0.36, 1.05),
    ("neck_base", "head_top"): (0.12, 0.50),
    ("upper_neck", "head_top"): (0.10, 0.45),
    ("head_centre", "head_top"): (0.03, 0.27),
    ("nose", "left_eye"): (0.01, 0.10),
    ("nose", "right_eye"): (0.01, 0.10),
    ("nose", "left_ear"): (0.05, 0.22),
    ("nose", "right_ear"): (0.05, 0.22),
    ("nose", "left_shoulder"): (0.10, 0.50),
    ("nose", "right_shoulder"): (0.10, 0.50),
    ("smpl_neck", "smpl_head"): (0.03, 0.30),
    ("pelvis", "smpl_head"): (0.35, 1.05),
    ("spine1", "pelvis"): (0.03, 0.30),
    ("left_ankle", "left_foot"): (0.05, 0.28),
    ("right_ankle", "right_foot"): (0.05, 0.28),
    ("left_wrist", "left_hand"): (0.03, 0.22),
    ("right_wrist", "right_hand"): (0.03, 0.22),
}

# ------------------------------------------------------------------------------------------------- sides and orders
SIDES_DIFFER = 0.015  # person sizes between the two assignments, for a sample to have an opinion: seen from the side
# left and right nearly coincide
JUMBLED = 4  # of HUMAN_RANGES_M that a sample breaks, before its order is in doubt though no other is known to fit
SIDES_TELL = 0.35  # of a group's samples must have one, before the group is accused
ORDER_BETTER = 0.06  # person sizes a joint order must fit the keypoints better by; wrong ones are 0.15 and more off

# ----------------------------------------------------------------------------------- what "explained" means for 2D
SOUND_MISS = (0.02, 0.08)  # between these the corpus's own sound level is believed: no estimator is better, none worse
SOUND_QUANTILE = 0.3  # of the groups' medians: sound as long as a third of the groups are
EXPLAINED_TIMES, EXPLAINED_PLUS = 1.6, 0.02  # a repaired group misses at most this much more than the sound ones
CAMERA_MISS = 0.10  # person sizes that a wrong camera puts people off by at least; else something milder is wrong
CAMERA_EXTRA = 0.03  # person sizes: a repaired camera is still a guess, its lens and rounding left out
REPAIR_SHARE = 0.5  # a repair leaves at most this share of the miss

# --------------------------------------------------------------------------------------------- 3D against 2D labels
INTERNAL_MISS = 0.012  # person sizes; real Human3.6M, its lens left out, is at 0.006 and the others below
INTERNAL_EXACT, INTERNAL_MISS_EXACT = 0.0005, 0.0015  # where the sound groups are below the first, the second is wrong
INTERNAL_TIMES = 3.0  # the same against the corpus's sounder groups
INTERNAL_SOUND_AT_MOST = 0.03  # no corpus's 2D labels are further off its 3D labels as a rule
SHIFT_LEAVES = 0.3  # share of the miss that may remain, where a shift or a zoom explains it ...
SHIFT_LEAVES_MOST = 0.03  # ... and person sizes

# ------------------------------------------------------------------------------------------------- steps and scales
SHIFT_FLOOR = 0.018  # person sizes; groups of sound sets differ by up to 0.011
SHIFT_SPREAD = 0.005  # person sizes that sound groups differ by for reasons of their own
SHIFT_SAMPLES = 8  # of a group: fewer share one pose, and an estimator's error with it
SHIFT_GAIN = 0.92  # the step must leave at most this share of the miss
SHIFT_ALL = 0.06  # person sizes, of a whole corpus: its definition of joints can differ from the estimator's by 0.03
SCALE_FLOOR = 0.0115  # share; subjects of sound sets (70 samples each) differ by up to 0.006
SCALE_SPREAD, SCALE_SIGMAS = 0.003, 2.75
SCALE_PER_MISS = 0.1  # share by which a take looks larger or smaller, for each person size that keypoints miss by
SCALE_PLAIN = 0.03  # a scale that a single camera's or a small group's keypoints show
SCALE_SAMPLES, SCALE_SUBJECTS = 40, 3  # of a subject, and subjects to compare
PLACE_FLOOR_M = 0.06  # metres a take must lie beside the person; the noise of a take's mean is 0.01 to 0.02
PLACE_SIGMAS = 5.0
PLACE_GAIN = 0.8  # the step must leave at most this share of the miss
MODEL_BETTER = 0.93  # share of the likely model's miss that another may leave, before it is believed instead

# -------------------------------------------------------------------------------------------------------- frame lags
LAG_FRAMES = 12  # labelled frames either way
LAG_PAIRS = 6  # pairs of frames that a lag must rest on
LAG_BETTER = 0.75  # the lag leaves at most this share of the miss
LAG_AGREEMENT = 0.6  # of the samples that tell, for a lag: a slow person's often do not
LAG_SLIGHT, LAG_SLIGHT_SIGMAS = 0.85, 5.0  # a lag of a slow person, seen from several sides: less gain, but surer
LAG_SLIGHT_MOMENTS = 5  # that a slight lag must rest on, however many cameras saw them
LAG_SLIGHT_TIMES = 2.0  # times the sound samples' miss that it may leave
LAG_EXACT = 0.2  # what leaves as little as this of the miss needs no statistics
LAG_LEAST = 0.008  # person sizes it must gain: less is a person who stands still
LAG_SIGMAS = 3.5  # the gain against its own scatter over pairs

# ------------------------------------------------------------------------------------------------------ other views
VIEWS_APART_M = 0.04  # metres between one moment's poses through two cameras; synchronised corpora agree to 0.005
VIEWS_TIMES = 3.0
VIEWS_REPAIRED = 0.35  # share of the distance that a repair may leave
VIEWS_SCALE = 0.006  # share by which poses must be scaled to agree
UPRIGHT_DEG, LYING_DEG = 35.0, 60.0  # a group's mean "up" against the corpus's: sound below the first, wrong above

# ---------------------------------------------------------------------------------------------------- SMPL's bodies
BODY_TURNED_DEG = 50.0  # of a body's left and up from its joints'; a twisted trunk turns them by 30
BODY_UPSIDE_DOWN = 0.3  # of the body's up along the picture's down, for a body without joints to tell anything

# ----------------------------------------------------------------------------------------- people, frames and fields
WRONG_PERSON = 0.25  # person sizes: the chunker's own cut is 0.15 of the labelled box
WRONG_SHARE = 0.2  # of a group's samples, above the others
UNMATCHED_SHARE = 0.3  # of a group's frames, above the others: floor poses cost sound groups up to 0.15
RESIDUAL_FLOOR = 0.04  # person sizes, median miss above the others'
RESIDUAL_SAMPLES = 12  # bad ones, of two takes at least, before labels are blamed and not the estimator
RESIDUAL_WRONG = 0.2  # from here on labels are wrong; below, it may be the estimator that fails on odd poses
BEHIND_SHARE, OFF_IMAGE_SHARE = 0.02, 0.3  # of a group's joints; of its samples that lie off the image
ZEROED_SHARE = 0.02  # of a group's samples; raw coordinates never coincide
LABELS_MISSING, CUES_MISSING = 0.1, 0.5  # of a group's samples, above the others
DEPTH_FACTOR, DEPTH_SPREAD = 1.15, 1.03  # a group's depth against the others', and how far sound groups lie apart
DEPTH_FACTOR_ALL = 1.6  # a whole corpus: DepthPro itself is known to read 60 cm as 90
DUPLICATE_M = 0.0005  # labels this near, of pictures with one hash, are the same moment
COPY_M = 1e-6  # labels this near are the same numbers: nobody stands that still
COPIED_SHARE = 0.02  # of a group's samples
MIXED_SHARE = 0.1  # of a group's samples in another order
