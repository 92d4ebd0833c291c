"""300 well-known molecules, for tests of how molecules are written."""

# ruff: noqa: E501 (one molecule cannot be broken into lines)

SOLVENTS = """
water O|methanol CO|ethanol CCO|propan-1-ol CCCO|isopropanol CC(C)O|butan-1-ol CCCCO
tert-butanol CC(C)(C)O|hexan-1-ol CCCCCCO|octan-1-ol CCCCCCCCO|glycol OCCO|glycerol OCC(O)CO
phenol Oc1ccccc1|benzyl-alcohol OCc1ccccc1|trifluoroethanol OCC(F)(F)F|acetone CC(C)=O
butanone CCC(C)=O|cyclohexanone O=C1CCCCC1|acetic-acid CC(O)=O|formic-acid OC=O
trifluoroacetic-acid OC(=O)C(F)(F)F|ethyl-acetate CCOC(C)=O|methyl-acetate COC(C)=O
propylene-carbonate CC1COC(=O)O1|gamma-butyrolactone O=C1CCCO1|diethyl-ether CCOCC
thf C1CCOC1|dioxane C1COCCO1|dme COCCOC|mtbe COC(C)(C)C|anisole COc1ccccc1|pentane CCCCC
hexane CCCCCC|heptane CCCCCCC|isooctane CC(C)CC(C)(C)C|cyclohexane C1CCCCC1|decane CCCCCCCCCC
hexadecane CCCCCCCCCCCCCCCC|benzene c1ccccc1|toluene Cc1ccccc1|o-xylene Cc1ccccc1C
p-xylene Cc1ccc(C)cc1|mesitylene Cc1cc(C)cc(C)c1|cumene CC(C)c1ccccc1|styrene C=Cc1ccccc1
naphthalene c1ccc2ccccc2c1|tetralin C1CCc2ccccc2C1|dichloromethane ClCCl|chloroform ClC(Cl)Cl
carbon-tetrachloride ClC(Cl)(Cl)Cl|dichloroethane ClCCCl|bromoform BrC(Br)Br|iodomethane CI
chlorobenzene Clc1ccccc1|bromobenzene Brc1ccccc1|iodobenzene Ic1ccccc1|fluorobenzene Fc1ccccc1
hexafluorobenzene Fc1c(F)c(F)c(F)c(F)c1F|nitromethane C[N+](=O)[O-]|nitroethane CC[N+](=O)[O-]
nitrobenzene O=[N+]([O-])c1ccccc1|acetonitrile CC#N|propionitrile CCC#N|benzonitrile N#Cc1ccccc1
dmf CN(C)C=O|dma CN(C)C(C)=O|nmp CN1CCCC1=O|formamide NC=O|n-methylformamide CNC=O
dmso CS(C)=O|sulfolane O=S1(=O)CCCC1|dimethyl-sulfone CS(C)(=O)=O|pyridine c1ccncc1
2-picoline Cc1ccccn1|quinoline c1ccc2ncccc2c1|pyrrolidine C1CCNC1|piperidine C1CCNCC1
morpholine C1COCCN1|aniline Nc1ccccc1|n-methylaniline CNc1ccccc1|diethylamine CCNCC
triethylamine CCN(CC)CC|butylamine CCCCN|ethanolamine NCCO|carbon-disulfide S=C=S
thiophene c1ccsc1|furan c1ccoc1|pyrrole c1cc[nH]c1|hmpa CN(C)P(=O)(N(C)C)N(C)C
tributyl-phosphate CCCCOP(=O)(OCCCC)OCCCC|trimethyl-phosphate COP(=O)(OC)OC|dmpu CN1CCCN(C)C1=O
tetramethylurea CN(C)C(=O)N(C)C|methane C|hydrogen-sulfide S|ammonia N|hydrogen-chloride Cl
benzaldehyde O=Cc1ccccc1|acetophenone CC(=O)c1ccccc1|biphenyl c1ccc(-c2ccccc2)cc1|propane CCC
indole c1ccc2[nH]ccc2c1|imidazole c1c[nH]cn1|pyrazole c1cn[nH]c1|oxirane C1CO1|ethylene C=C
cyclopropane C1CC1|acetylene C#C|formaldehyde C=O|acetaldehyde CC=O|trichloroethylene ClC=C(Cl)Cl
tetrachloroethylene ClC(Cl)=C(Cl)Cl|ethylamine CCN|butadiene C=CC=C
"""

DRUGS = """
aspirin CC(=O)Oc1ccccc1C(=O)O|paracetamol CC(=O)Nc1ccc(O)cc1|ibuprofen CC(C)Cc1ccc(C(C)C(=O)O)cc1
naproxen COc1ccc2cc([C@H](C)C(=O)O)ccc2c1|ketoprofen CC(C(=O)O)c1cccc(C(=O)c2ccccc2)c1
diclofenac OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl|indomethacin COc1ccc2c(c1)c(CC(=O)O)c(C)n2C(=O)c1ccc(Cl)cc1
caffeine Cn1c(=O)c2c(ncn2C)n(C)c1=O|theophylline Cn1c(=O)c2[nH]cnc2n(C)c1=O
nicotine CN1CCC[C@H]1c1cccnc1|warfarin CC(=O)CC(c1ccccc1)c1c(O)c2ccccc2oc1=O
diazepam CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21|lidocaine CCN(CC)CC(=O)Nc1c(C)cccc1C
procaine CCN(CC)CCOC(=O)c1ccc(N)cc1|benzocaine CCOC(=O)c1ccc(N)cc1|salbutamol CC(C)(C)NCC(O)c1ccc(O)c(CO)c1
propranolol CC(C)NCC(O)COc1cccc2ccccc12|atenolol CC(C)NCC(O)COc1ccc(CC(N)=O)cc1
metoprolol COCCc1ccc(OCC(O)CNC(C)C)cc1|fluoxetine CNCCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1
sertraline CN[C@H]1CC[C@@H](c2ccc(Cl)c(Cl)c2)c2ccccc21|amitriptyline CN(C)CCC=C1c2ccccc2CCc2ccccc21
imipramine CN(C)CCCN1c2ccccc2CCc2ccccc21|chlorpromazine CN(C)CCCN1c2ccccc2Sc2ccc(Cl)cc21
haloperidol O=C(CCCN1CCC(O)(c2ccc(Cl)cc2)CC1)c1ccc(F)cc1|phenytoin O=C1NC(=O)C(c2ccccc2)(c2ccccc2)N1
carbamazepine NC(=O)N1c2ccccc2C=Cc2ccccc21|phenobarbital CCC1(c2ccccc2)C(=O)NC(=O)NC1=O
valproic-acid CCCC(CCC)C(=O)O|gabapentin NCC1(CC(=O)O)CCCCC1|metformin CN(C)C(=N)NC(=N)N
omeprazole COc1ccc2[nH]c(S(=O)Cc3ncc(C)c(OC)c3C)nc2c1|sulindac CC1=C(CC(=O)O)c2cc(F)ccc2C1=Cc1ccc(S(C)=O)cc1
modafinil NC(=O)CS(=O)C(c1ccccc1)c1ccccc1|albendazole-sulfoxide CCCS(=O)c1ccc2[nH]c(NC(=O)OC)nc2c1
dapsone Nc1ccc(S(=O)(=O)c2ccc(N)cc2)cc1|sulfamethoxazole Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1
sulfadiazine Nc1ccc(S(=O)(=O)Nc2ncccn2)cc1|trimethoprim COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC
furosemide NS(=O)(=O)c1cc(C(=O)O)c(NCc2ccco2)cc1Cl|hydrochlorothiazide NS(=O)(=O)c1cc2c(cc1Cl)NCNS2(=O)=O
celecoxib Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1|metronidazole Cc1ncc([N+](=O)[O-])n1CCO
nitrofurantoin O=C1CN(N=Cc2ccc([N+](=O)[O-])o2)C(=O)N1|chloramphenicol O=C(N[C@H](CO)[C@H](O)c1ccc([N+](=O)[O-])cc1)C(Cl)Cl
nifedipine COC(=O)C1=C(C)NC(C)=C(C(=O)OC)C1c1ccccc1[N+](=O)[O-]|nitroglycerin O=[N+]([O-])OCC(CO[N+](=O)[O-])O[N+](=O)[O-]
zidovudine Cc1cn([C@H]2C[C@H](N=[N+]=[N-])[C@@H](CO)O2)c(=O)[nH]c1=O|minoxidil Nc1cc(N2CCCCC2)nc(N)[n+]1[O-]
chlordiazepoxide CN=C1C[N+]([O-])=C(c2ccccc2)c2cc(Cl)ccc2N1|penicillin-g CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O
amoxicillin CC1(C)S[C@@H]2[C@H](NC(=O)[C@H](N)c3ccc(O)cc3)C(=O)N2[C@H]1C(=O)O|ciprofloxacin O=C(O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O
isoniazid NNC(=O)c1ccncc1|pyrazinamide NC(=O)c1cnccn1|ethambutol CC[C@@H](CO)NCCN[C@@H](CC)CO
fluconazole OC(Cn1cncn1)(Cn1cncn1)c1ccc(F)cc1F|acyclovir Nc1nc2c(ncn2COCCO)c(=O)[nH]1
oseltamivir CCOC(=O)C1=C[C@@H](OC(CC)CC)[C@H](NC(C)=O)[C@@H](N)C1|morphine CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5
methadone CCC(=O)C(CC(C)N(C)C)(c1ccccc1)c1ccccc1|fentanyl CCC(=O)N(c1ccccc1)C1CCN(CCc2ccccc2)CC1
cocaine COC(=O)[C@H]1[C@@H](OC(=O)c2ccccc2)C[C@@H]2CC[C@H]1N2C|atropine CN1[C@H]2CC[C@@H]1CC(OC(=O)C(CO)c1ccccc1)C2
quinine COc1ccc2nccc([C@@H](O)[C@@H]3C[C@@H]4CCN3C[C@@H]4C=C)c2c1|chloroquine CCN(CC)CCCC(C)Nc1ccnc2cc(Cl)ccc12
ephedrine CN[C@@H](C)[C@H](O)c1ccccc1|amphetamine CC(N)Cc1ccccc1|dopamine NCCc1ccc(O)c(O)c1
adrenaline CNC[C@H](O)c1ccc(O)c(O)c1|serotonin NCCc1c[nH]c2ccc(O)cc12|histamine NCCc1c[nH]cn1
melatonin COc1ccc2[nH]cc(CCNC(C)=O)c2c1|testosterone C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@@]43C)[C@@H]1CC[C@@H]2O
estradiol C[C@]12CC[C@@H]3c4ccc(O)cc4CC[C@H]3[C@@H]1CC[C@@H]2O|cortisol C[C@]12CCC(=O)C=C1CC[C@@H]1[C@@H]2[C@@H](O)C[C@@]2(C)[C@H]1CC[C@]2(O)C(=O)CO
cholesterol CC(C)CCC[C@@H](C)[C@H]1CC[C@H]2[C@@H]3CC=C4C[C@@H](O)CC[C@]4(C)[C@H]3CC[C@]12C
simvastatin CCC(C)(C)C(=O)O[C@H]1C[C@@H](C)C=C2C=C[C@H](C)[C@H](CC[C@@H]3C[C@@H](O)CC(=O)O3)[C@H]21
captopril C[C@H](CS)C(=O)N1CCC[C@H]1C(=O)O|enalapril CCOC(=O)[C@H](CCc1ccccc1)N[C@@H](C)C(=O)N1CCC[C@H]1C(=O)O
losartan CCCCc1nc(Cl)c(CO)n1Cc1ccc(-c2ccccc2-c2nnn[nH]2)cc1|allopurinol O=c1[nH]cnc2[nH]ncc12
cyclophosphamide O=P1(N(CCCl)CCCl)NCCCO1|methotrexate CN(Cc1cnc2nc(N)nc(N)c2n1)c1ccc(C(=O)N[C@@H](CCC(=O)O)C(=O)O)cc1
fluorouracil O=c1[nH]cc(F)c(=O)[nH]1|imatinib Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1
tamoxifen CCC(=C(c1ccccc1)c1ccc(OCCN(C)C)cc1)c1ccccc1|sildenafil CCCc1nn(C)c2c(=O)[nH]c(-c3cc(S(=O)(=O)N4CCN(C)CC4)ccc3OCC)nc12
loratadine CCOC(=O)N1CCC(=C2c3ccc(Cl)cc3CCc3cccnc32)CC1|diphenhydramine CN(C)CCOC(c1ccccc1)c1ccccc1
ranitidine CNC(=C[N+](=O)[O-])NCCSCc1ccc(CN(C)C)o1|cimetidine CN=C(NC#N)NCCSCc1[nH]cnc1C
ascorbic-acid O=C1O[C@H]([C@@H](O)CO)C(O)=C1O|biotin O=C(O)CCCC[C@@H]1SC[C@@H]2NC(=O)N[C@H]12
retinol CC1=C(C=CC(C)=CC=CC(C)=CCO)C(C)(C)CCC1|glucose OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O
thalidomide O=C1CCC(N2C(=O)c3ccccc3C2=O)C(=O)N1|allicin C=CCSS(=O)CC=C|fosfomycin C[C@@H]1O[C@@H]1P(=O)(O)O
foscarnet OC(=O)P(=O)(O)O|alendronic-acid NCCCC(O)(P(=O)(O)O)P(=O)(O)O|cysteine N[C@@H](CS)C(=O)O
alanine C[C@H](N)C(=O)O|phenylalanine N[C@@H](Cc1ccccc1)C(=O)O|methionine CSCC[C@H](N)C(=O)O
tryptophan N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O|lysine NCCCC[C@H](N)C(=O)O|glycine NCC(=O)O
adenine Nc1ncnc2nc[nH]c12|cytosine Nc1cc[nH]c(=O)n1|uracil O=c1cc[nH]c(=O)[nH]1|urea NC(N)=O
thiourea NC(N)=S|saccharin O=C1NS(=O)(=O)c2ccccc21|vanillin COc1cc(C=O)ccc1O|menthol CC(C)[C@@H]1CC[C@@H](C)C[C@H]1O
camphor CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2|limonene C=C(C)[C@@H]1CC=C(C)CC1|capsaicin COc1cc(CNC(=O)CCCCC=CC(C)C)ccc1O
salicylic-acid O=C(O)c1ccccc1O|benzoic-acid O=C(O)c1ccccc1|citric-acid OC(=O)CC(O)(CC(=O)O)C(=O)O
oxalic-acid OC(=O)C(=O)O|lactic-acid C[C@H](O)C(=O)O|maleic-acid O=C(O)/C=C\\C(=O)O|fumaric-acid O=C(O)/C=C/C(=O)O
cinnamic-acid O=C(O)/C=C/c1ccccc1|resveratrol Oc1ccc(/C=C/c2cc(O)cc(O)c2)cc1|clomifene CCN(CC)CCOc1ccc(/C(=C(\\Cl)c2ccccc2)c2ccccc2)cc1
"""

DYES = """
anthracene c1ccc2cc3ccccc3cc2c1|pyrene c1cc2ccc3cccc4ccc(c1)c2c34|perylene c1cc2cccc3c4cccc5cccc(c(c1)c23)c54
coumarin O=c1ccc2ccccc2o1|coumarin-153 O=c1cc(C(F)(F)F)c2cc3c4c(c2o1)CCCN4CCC3|fluorescein O=C1OC2(c3ccc(O)cc3Oc3cc(O)ccc32)c2ccccc21
prodan CCC(=O)c1ccc2cc(N(C)C)ccc2c1|azobenzene c1ccc(N=Nc2ccccc2)cc1|methyl-yellow CN(C)c1ccc(N=Nc2ccccc2)cc1
disperse-red-1 CCN(CCO)c1ccc(N=Nc2ccc([N+](=O)[O-])cc2)cc1|nile-red CCN(CC)c1ccc2nc3c4ccccc4c(=O)cc-3oc2c1
indigo O=C1C(=C2Nc3ccccc3C2=O)Nc2ccccc21|alizarin O=C1c2ccccc2C(=O)c2c1ccc(O)c2O|anthraquinone O=C1c2ccccc2C(=O)c2ccccc21
carbazole c1ccc2c(c1)[nH]c1ccccc12|porphine C1=Cc2cc3ccc(cc4nc(cc5ccc(cc1n2)[nH]5)C=C4)[nH]3|acridine c1ccc2nc3ccccc3cc2c1
phenothiazine c1ccc2c(c1)Nc1ccccc1S2|4-nitroaniline Nc1ccc([N+](=O)[O-])cc1|dmabn CN(C)c1ccc(C#N)cc1
dcm CC1=CC(=C(C#N)C#N)C=C(C=Cc2ccc(N(C)C)cc2)O1|stilbene C(=Cc1ccccc1)c1ccccc1|bodipy F[B-]1(F)n2cccc2C=C2C=CC=[N+]21
rhodamine-b-lactone CCN(CC)c1ccc2c(c1)Oc1cc(N(CC)CC)ccc1C21OC(=O)c2ccccc21
"""

IONS = """
phenolate [O-]c1ccccc1|acetate CC(=O)[O-]|benzoate O=C([O-])c1ccccc1|methanesulfonate CS(=O)(=O)[O-]
anilinium [NH3+]c1ccccc1|ethylammonium CC[NH3+]|tetramethylammonium C[N+](C)(C)C|choline C[N+](C)(C)CCO
betaine C[N+](C)(C)CC(=O)[O-]|glycine-zwitterion [NH3+]CC(=O)[O-]|n-methylpyridinium C[n+]1ccccc1
paraquat C[n+]1ccc(-c2cc[n+](C)cc2)cc1|acetylcholine CC(=O)OCC[N+](C)(C)C|emim CCn1cc[n+](C)c1
tetrafluoroborate F[B-](F)(F)F|pyridine-n-oxide [O-][n+]1ccccc1|trimethylamine-n-oxide C[N+](C)(C)[O-]
methyl-azide CN=[N+]=[N-]|diazomethane C=[N+]=[N-]|methyl-isocyanide [C-]#[N+]C|trimethylsulfonium C[S+](C)C
tetramethylphosphonium C[P+](C)(C)C|guanidinium NC(N)=[NH2+]|malachite-green CN(C)c1ccc(C(=C2C=CC(=[N+](C)C)C=C2)c2ccccc2)cc1
methylene-blue CN(C)c1ccc2nc3ccc(=[N+](C)C)cc-3sc2c1|acridine-orange CN(C)c1ccc2cc3ccc(N(C)C)cc3[nH+]c2c1
brooker-merocyanine CN1C=CC(=CC=C2C=CC(=O)C=C2)C=C1|squaraine CN(C)c1ccc(C2=C([O-])C(=C3C=CC(=[N+](C)C)C=C3)C2=O)cc1
reichardt [O-]c1c(-c2ccccc2)cc(-[n+]2c(-c3ccccc3)cc(-c3ccccc3)cc2-c2ccccc2)cc1-c1ccccc1
tempo CC1(C)CCCC(C)(C)N1[O]|methyl-radical [CH3]|carbon-atom [C]|nitric-oxide [N]=O|superoxide [O][O-]
"""


def _parse(table: str) -> dict[str, str]:
    items = (item for line in table.strip().splitlines() for item in line.split("|"))
    return dict(item.split(" ") for item in items)


MOLECULES = {
    name: smiles
    for table in (SOLVENTS, DRUGS, DYES, IONS)
    for name, smiles in _parse(table).items()
}
"""SMILES of the molecules by name."""
