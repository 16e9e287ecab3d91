"""Numbers of the kernel's interfaces, under the names they have in the headers that are named below."""

from __future__ import annotations

from typing import Final

# asm-generic/socket.h -----------------------------------------------------------------------------

SO_RCVBUFFORCE: Final = 33

# linux/netlink.h ----------------------------------------------------------------------------------

NETLINK_ROUTE: Final = 0
NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12
NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12

NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSG_MIN_TYPE: Final = 16

NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF
NLMSGERR_ATTR_MSG: Final = 1

# linux/genetlink.h --------------------------------------------------------------------------------

GENL_ID_CTRL: Final = 16
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2
CTRL_VERSION: Final = 2

# linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h -------------------------------------------------

RTMGRP_LINK: Final = 0x1
RTMGRP_IPV4_IFADDR: Final = 0x10
RTMGRP_IPV6_IFADDR: Final = 0x100
RTNLGRP_LINK: Final = 1
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV4_RULE: Final = 8
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV6_ROUTE: Final = 11
RTNLGRP_IPV6_RULE: Final = 19
RTNLGRP_IPV4_NETCONF: Final = 24
RTNLGRP_IPV6_NETCONF: Final = 25
RTNLGRP_NEXTHOP: Final = 32
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34
RTM_NEWQDISC: Final = 36
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46
RTM_NEWNETCONF: Final = 80
RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106
NHA_ID: Final = 1
NHA_GROUP: Final = 2
NHA_OIF: Final = 5
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTA_DST: Final = 1
RTA_SRC: Final = 2
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PREFSRC: Final = 7
RTA_METRICS: Final = 8
RTAX_MTU: Final = 2
RTA_MARK: Final = 16
RTA_VIA: Final = 18
RTA_NH_ID: Final = 30
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
RT_TABLE_MAIN: Final = 254
RT_SCOPE_LINK: Final = 253
RTPROT_KERNEL: Final = 2
RTA_IIF: Final = 3
RTA_PRIORITY: Final = 6
RTA_MULTIPATH: Final = 9
IFLA_LINKINFO: Final = 18
IFLA_INFO_KIND: Final = 1
IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFF_NOARP: Final = 0x80
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_FLAGS: Final = 8
IFA_F_TEMPORARY: Final = 0x01
IFA_F_NODAD: Final = 0x02
IFA_F_OPTIMISTIC: Final = 0x04
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
IFNAMSIZ: Final = 16

# linux/fib_rules.h --------------------------------------------------------------------------------

FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FR_ACT_NOP: Final = 3
FR_ACT_PROHIBIT: Final = 8
FRA_DST: Final = 1
FRA_SRC: Final = 2
FRA_IIFNAME: Final = 3
FRA_GOTO: Final = 4
FRA_PRIORITY: Final = 6
FRA_FWMARK: Final = 10
FRA_FWMASK: Final = 16
FRA_TABLE: Final = 15
RT_TABLE_LOCAL: Final = 255

# linux/pkt_sched.h, linux/pkt_cls.h, linux/filter.h, linux/if_ether.h ---------------------------------------

TC_H_CLSACT: Final = 0xFFFFFFF1
TC_H_CLSACT_EGRESS: Final = 0xFFFFFFF3  # its minor number is TC_H_MIN_EGRESS
TCA_KIND: Final = 1
TCA_OPTIONS: Final = 2
TCA_BPF_OPS_LEN: Final = 4
TCA_BPF_OPS: Final = 5
TCA_BPF_NAME: Final = 7
TCA_BPF_FLAGS: Final = 8
TCA_BPF_FLAG_ACT_DIRECT: Final = 1
TC_ACT_OK: Final = 0
TC_ACT_SHOT: Final = 2
SKF_AD_MARK: Final = 0xFFFFF000 + 20  # SKF_AD_OFF, -0x1000, as an unsigned number
ETH_P_ALL: Final = 3

# linux/netconf.h ----------------------------------------------------------------------------------

NETCONFA_IFINDEX: Final = 1
NETCONFA_FORWARDING: Final = 2
NETCONFA_RP_FILTER: Final = 3
NETCONFA_IFINDEX_ALL: Final = -1

# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h ------------------------------

NFPROTO_INET: Final = 1
NFGENMSG_SIZE: Final = 4
NFNLGRP_NFTABLES: Final = 7
NFPROTO_IPV4: Final = 2
NFPROTO_IPV6: Final = 10
NFNL_SUBSYS_NFTABLES: Final = 10
NFTA_TABLE_NAME: Final = 1

# linux/netfilter/nfnetlink_conntrack.h, linux/netfilter/nf_conntrack_common.h ------------------------------

NFNL_SUBSYS_CTNETLINK: Final = 1
IPCTNL_MSG_CT_GET: Final = 1
IPCTNL_MSG_CT_DELETE: Final = 2
CTA_TUPLE_ORIG: Final = 1
CTA_TUPLE_REPLY: Final = 2
CTA_STATUS: Final = 3
CTA_PROTOINFO: Final = 4
CTA_ID: Final = 12
CTA_ZONE: Final = 18
CTA_FILTER: Final = 25
CTA_STATUS_MASK: Final = 26
CTA_FILTER_ORIG_FLAGS: Final = 1
CTA_FILTER_F_IP_SRC: Final = 1 << 0  # net/netfilter/nf_conntrack_netlink.c, CTA_FILTER_F_CTA_IP_SRC
CTA_FILTER_F_IP_DST: Final = 1 << 1
CTA_FILTER_REPLY_FLAGS: Final = 2
CTA_FILTER_F_PROTO_NUM: Final = 1 << 3
CTA_FILTER_F_PROTO_DST_PORT: Final = 1 << 5
CTA_PROTOINFO_TCP: Final = 1
CTA_PROTOINFO_TCP_STATE: Final = 1
# linux/netfilter/nf_conntrack_tcp.h
TCP_CONNTRACK_TIME_WAIT: Final = 7
TCP_CONNTRACK_CLOSE: Final = 8
CTA_TUPLE_IP: Final = 1
CTA_TUPLE_PROTO: Final = 2
CTA_PROTO_NUM: Final = 1
CTA_PROTO_SRC_PORT: Final = 2
CTA_PROTO_DST_PORT: Final = 3
CTA_IP_V4_SRC: Final = 1
CTA_IP_V4_DST: Final = 2
CTA_IP_V6_SRC: Final = 3
CTA_IP_V6_DST: Final = 4
IPS_SRC_NAT: Final = 1 << 4

# linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h -----------------------------------------------

SOCK_DIAG_BY_FAMILY: Final = 20
TCP_CLOSE: Final = 7  # of UDP: not connected
TCP_LISTEN: Final = 10

# linux/wireguard.h --------------------------------------------------------------------------------

WG_GENL_NAME: Final = "wireguard"
WG_GENL_VERSION: Final = 1
WG_KEY_LEN: Final = 32

WG_CMD_GET_DEVICE: Final = 0
WG_CMD_SET_DEVICE: Final = 1

WGDEVICE_A_IFNAME: Final = 2
WGDEVICE_A_PRIVATE_KEY: Final = 3
WGDEVICE_A_FLAGS: Final = 5
WGDEVICE_A_LISTEN_PORT: Final = 6
WGDEVICE_A_PEERS: Final = 8

WGDEVICE_F_REPLACE_PEERS: Final = 1 << 0

WGPEER_F_REMOVE_ME: Final = 1 << 0
WGPEER_F_REPLACE_ALLOWEDIPS: Final = 1 << 1
WGPEER_F_UPDATE_ONLY: Final = 1 << 2

WGPEER_A_PUBLIC_KEY: Final = 1
WGPEER_A_FLAGS: Final = 3
WGPEER_A_ENDPOINT: Final = 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: Final = 5
WGPEER_A_ALLOWEDIPS: Final = 9

WGALLOWEDIP_A_FAMILY: Final = 1
WGALLOWEDIP_A_IPADDR: Final = 2
WGALLOWEDIP_A_CIDR_MASK: Final = 3
